-- Events that no delivery causes, stored in the transaction that causes them and deleted once the broker has them.

create table outbox (
    id bigint generated always as identity primary key,
    message_id uuid not null,
    exchange text not null,
    routing_key text not null,
    event text not null,
    -- Events of one key leave in order.
    key text not null,
    body bytea not null,
    -- Whether it is kept, and tried again, when nobody listens.
    mandatory boolean not null,
    traceparent text not null,
    attempts int not null default 0,
    not_before timestamptz not null default now(),
    created_at timestamptz not null default now()
);

create index outbox_by_key on outbox (key, id);
