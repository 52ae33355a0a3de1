# One small image a service: `docker build --target ms-inventory .`, `--target ms-orders` and `--target ms-users`.
#
# BuildKit's cache mounts keep what was downloaded and the dependencies that were compiled. Unlike a layer with the
# dependencies in it they survive a change of Cargo.lock. Our own crates are compiled each time.

FROM node:20.19.5-bookworm-slim AS playground
WORKDIR /src/playground
COPY playground/package.json playground/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci
COPY playground ./
RUN npm run build

FROM rust:1.95.0-bookworm AS programs
WORKDIR /src
# Queries are checked against `.sqlx`, so no database is needed. Names stay in the programs for their backtraces; line
# tables would be most of the image.
ENV SQLX_OFFLINE=true CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY e2e e2e
COPY bench bench
COPY --from=playground /src/playground/dist playground/dist
COPY crates crates
COPY ms-inventory ms-inventory
COPY ms-orders ms-orders
COPY ms-users ms-users
# A cache mount is no part of the image, so the programs leave it in the same step. It is shared by all checkouts on a
# host, and COPY keeps the times by which cargo tells what has changed; touched, our own crates are compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=order-inventory-target,target=/src/target,sharing=locked \
    find crates migrations ms-inventory ms-orders ms-users playground/dist -type f -exec touch {} + \
    && cargo build --locked --release --package ms-inventory --package ms-orders --package ms-users --bins \
    && mkdir /programs \
    && cp target/release/ms-inventory target/release/ms-orders target/release/ms-users \
          target/release/seed-data target/release/test-events target/release/place-orders /programs

# The programs need glibc and nothing else; bash is there for the health check. An ENTRYPOINT resets the CMD that a stage
# inherits, so each stage has both. The user has no name, no home and no
# file of its own.
FROM debian:12.15-slim AS service
# Whose certificates are trusted where services talk over HTTPS.
COPY --from=programs /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV BIND_ADDRESS=0.0.0.0
USER 10001:10001

FROM service AS ms-inventory
COPY --from=programs /programs/ms-inventory /programs/seed-data /programs/test-events /usr/local/bin/
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${INVENTORY_PORT:-8000}; printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3; read -r _ status _ <&3; [[ $status = 200 ]]"]
ENTRYPOINT ["ms-inventory"]
CMD ["serve"]

FROM service AS ms-orders
COPY --from=programs /programs/ms-orders /programs/place-orders /usr/local/bin/
EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${ORDERS_PORT:-8001}; printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3; read -r _ status _ <&3; [[ $status = 200 ]]"]
ENTRYPOINT ["ms-orders"]
CMD ["serve"]

FROM service AS ms-users
COPY --from=programs /programs/ms-users /usr/local/bin/
EXPOSE 8002
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${USERS_PORT:-8002}; printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3; read -r _ status _ <&3; [[ $status = 200 ]]"]
ENTRYPOINT ["ms-users"]
CMD ["serve"]
