-- Who changed which product, and to what: append-only. A price before an edit is in the edit before it.

create type product_change as enum ('created', 'edited', 'deleted');

create table product_edits (
    id bigint generated always as identity primary key,
    product_id bigint not null,
    version bigint not null,
    change product_change not null,
    sku text not null,
    name text not null,
    price numeric(12, 2) not null,
    -- An account's id, or the program that did it.
    actor text not null,
    trace_id text not null,
    at timestamptz not null default now()
);

create index product_edits_by_product on product_edits (product_id, id);

-- What there is of before.
insert into product_edits (product_id, version, change, sku, name, price, actor, trace_id, at)
select id, version, 'created', sku, name, price, '', '', updated_at from products where deleted_at is null;
