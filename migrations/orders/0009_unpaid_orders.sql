-- How much each account has unpaid, which is bounded: an account that declines every payment could otherwise hold all stock.

-- What the lines add up to, so that counting an account's units reads no lines.
alter table orders add column units bigint not null default 0;
update orders
set units = (select sum(quantity) from order_lines where order_id = orders.id)
where status in ('pending', 'confirmed');

-- An order leaves it when it is paid or has ended.
create index orders_unpaid on orders (user_id) where status in ('pending', 'confirmed');
