-- From a confirmed hold to goods sold: payments, and orders that wait for something.

alter table orders drop constraint cancelled_why;
alter table orders
    add constraint ended_why check ((status in ('cancelled', 'refunded')) = (reason is not null));

-- When something is done about an order for which nothing has happened: inventory is asked for its answer again, or an
-- order whose time is up is cancelled. Null where nothing is awaited.
alter table orders rename column next_ask_at to overdue_at;
alter table orders alter column overdue_at drop not null;
drop index orders_unanswered;
update orders
set overdue_at = case when status = 'confirmed' then coalesce(expires_at, now()) + interval '30 seconds' end
where status <> 'pending';
create index orders_overdue on orders (overdue_at) where overdue_at is not null;

-- Whether the goods of a refunded order come back.
alter table orders add column restock boolean not null default false;

create type payment_status as enum (
    'due',        -- to be made
    'paid',       -- made
    'declined',   -- refused by the provider
    'cancelled',  -- never tried, because its order was cancelled before
    'returning',  -- to be given back, or kept from being made
    'returned'    -- given back, or never made
);

-- The payment of an order, from when its stock is held. Who changes both locks the order first.
create table payments (
    order_id text collate "C" primary key,
    status payment_status not null default 'due',
    amount numeric(12, 2) not null,
    reference text,
    attempts int not null default 0,
    next_attempt_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint tried_while_open check ((status in ('due', 'returning')) = (next_attempt_at is not null))
);

create index payments_open on payments (next_attempt_at) where status in ('due', 'returning');

-- Orders that were confirmed before there were payments.
insert into payments (order_id, amount, reference, next_attempt_at)
select id, total, payment_reference, now() from orders where status = 'confirmed';

-- The books of the simulated provider, which no statement about orders reads.
create type provider_state as enum (
    'open',      -- asked for, and not carried out
    'charged',
    'declined',
    'void',      -- given back before it was made: never to be made
    'returned'
);

create table provider_charges (
    key text collate "C" primary key,
    amount numeric(12, 2) not null,
    reference text not null,
    state provider_state not null,
    requests int not null default 1,
    returns int not null default 0,
    settles_at timestamptz not null
);

-- The first cancelOrder or refundOrder under each idempotency key, kept for as long as the configuration says.
create table requests (
    operation text not null,
    idempotency_key text not null constraint key_length check (char_length(idempotency_key) between 1 and 255),
    order_id text collate "C" not null,
    reason text not null,
    restock boolean not null,
    created_at timestamptz not null default now(),
    primary key (operation, idempotency_key)
);

create index requests_by_age on requests (created_at);
