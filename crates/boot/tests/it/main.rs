//! The HTTP server as its clients meet it, on real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod server;

mod bounds;
mod clients;
mod cors;
mod headers;
mod https;
