-- Every change of on_hand, append-only: `on_hand` is the sum of a product's movements, which `doctor` checks.

create type movement_reason as enum ('received', 'adjusted', 'committed', 'returned');

create table movements (
    id bigint generated always as identity primary key,
    product_id bigint not null references products,
    quantity bigint not null constraint quantity_not_zero check (quantity <> 0),
    reason movement_reason not null,
    note text not null default '',
    actor text not null,
    order_id text,
    created_at timestamptz not null default now()
);

create index movements_by_product on movements (product_id, id);

-- The first answer to each idempotency key of adjustStock, kept for as long as the configuration says.
create table adjustments (
    idempotency_key text primary key constraint key_length check (char_length(idempotency_key) between 1 and 255),
    product_id bigint not null,
    delta bigint not null,
    note text not null,
    expected_on_hand bigint,
    on_hand bigint not null,
    reserved bigint not null,
    created_at timestamptz not null default now()
);

create index adjustments_by_age on adjustments (created_at);
