-- What inventory sells, as it last told: an order is priced here, whether inventory is up or not.

create table catalogue (
    product_id bigint primary key,
    sku text not null,
    name text not null,
    price numeric(12, 2) not null constraint price_not_negative check (price >= 0),
    -- The newest version wins, whichever way and in whichever order it arrives.
    version bigint not null,
    -- A deleted product keeps its row, so that an older change which arrives late does not bring it back.
    deleted boolean not null default false
);

-- The one row says that all products have been fetched at least once.
create table catalogue_fill (
    only_row boolean primary key default true constraint only_row check (only_row),
    filled_at timestamptz not null default now()
);
