-- Whose orders they are, and who did what to them.

-- The account that placed it. Null: it was placed before there were accounts, and only an ADMIN sees it.
alter table orders add column user_id uuid;

-- An idempotency key is its user's own: what another one makes up must not lead to somebody's order. Orders without a key
-- are not in the index.
alter table orders drop constraint idempotency_key_used;
create unique index idempotency_key_used on orders (user_id, idempotency_key) where idempotency_key is not null;

-- `orders(...)` of one user, newest first.
create index orders_by_user on orders (user_id, id);

-- The account by which an order took a status; null where an event, the payment or the time did it.
alter table order_steps add column actor_id uuid;

-- They stand for a day; those of before belong to nobody.
delete from requests;
alter table requests add column user_id uuid not null;
alter table requests drop constraint requests_pkey;
alter table requests add primary key (user_id, operation, idempotency_key);
