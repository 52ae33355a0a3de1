-- What is held for which order, and the answer each order got, for ever.
--
-- An order's lines stand in two arrays, one row an order: they are written once, always read together, and never
-- changed. Whoever changes the status of a held order must have locked the stock rows of all its products first, in
-- the order of their ids; that one rule rules out deadlocks and makes the arrays safe to read without a lock.

create type hold_status as enum (
    'held',       -- reserved, until expires_at
    'committed',  -- sold
    'released',   -- cancelled
    'expired',    -- its time ran out
    'rejected'    -- nothing was ever held; the row is the stored answer, or a cancellation that came first
);

create table holds (
    order_id text primary key constraint order_id_length check (char_length(order_id) between 1 and 64),
    status hold_status not null,
    -- One entry a product, in the order of the ids; null for a cancellation that overtook its creation.
    product_ids bigint[],
    quantities bigint[],
    -- The stored answer: until when, or why not and what was short.
    expires_at timestamptz,
    reason text,
    shortages jsonb,
    created_at timestamptz not null default now(),
    settled_at timestamptz,
    constraint lines_match check (cardinality(product_ids) = cardinality(quantities)),
    constraint held_until check ((status = 'rejected') = (expires_at is null)),
    constraint rejected_why check ((status = 'rejected') = (reason is not null))
);

-- Finds what is due; only live holds are in it.
create index holds_due on holds (expires_at) where status = 'held';

-- `holds(...)` lists the newest first.
create index holds_by_age on holds (created_at, order_id);
