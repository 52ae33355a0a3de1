-- Orders, what each is for, and how it came to be what it is.
--
-- Whoever changes several orders locks them in the order of their ids; that rules out deadlocks.

create type order_status as enum (
    'pending',    -- asked for, not yet answered
    'confirmed',  -- its stock is held
    'cancelled'   -- it will not be fulfilled
);

create table orders (
    -- Compared byte by byte: ids then sort by age, and the key serves `orders(...)`, newest first.
    id text collate "C" primary key constraint order_id_length check (char_length(id) between 1 and 64),
    status order_status not null default 'pending',
    -- Names the request that placed it: who sends it again gets the same order again.
    idempotency_key text
        constraint idempotency_key_used unique
        constraint idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    payment_reference text constraint payment_reference_length check (char_length(payment_reference) <= 255),
    subtotal numeric(12, 2) not null constraint subtotal_not_negative check (subtotal >= 0),
    fee numeric(12, 2) not null constraint fee_not_negative check (fee >= 0),
    total numeric(12, 2) not null constraint total_adds_up check (total = subtotal + fee),
    -- What inventory answered: until when stock is held, or why it is not and what was short.
    expires_at timestamptz,
    reason text,
    shortages jsonb,
    -- Whether inventory has said that nothing is held any more. It may say so before it is heard to have held.
    stock_released boolean not null default false,
    -- When an unanswered order is asked for again, and how often it was.
    next_ask_at timestamptz not null,
    asks int not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint cancelled_why check ((status = 'cancelled') = (reason is not null))
);

-- `orders(status: ...)`, newest first.
create index orders_by_status on orders (status, id);

-- Finds whom to ask for again; only unanswered orders are in it.
create index orders_unanswered on orders (next_ask_at) where status = 'pending';

-- What was ordered, with the product as it was then. One row a product.
create table order_lines (
    order_id text collate "C" not null references orders,
    product_id bigint not null,
    sku text not null,
    name text not null,
    quantity bigint not null constraint quantity_in_bounds check (quantity between 1 and 1000000),
    unit_price numeric(12, 2) not null,
    catalogue_version bigint not null,
    primary key (order_id, product_id)
);

-- Each status an order took, append-only.
create table order_steps (
    order_id text collate "C" not null references orders,
    id bigint generated always as identity,
    status order_status not null,
    -- The mutation or the event it took it by.
    cause text not null,
    -- The message that carried the event, where it had an id.
    message_id text,
    trace_id text not null,
    at timestamptz not null default now(),
    primary key (order_id, id)
);
