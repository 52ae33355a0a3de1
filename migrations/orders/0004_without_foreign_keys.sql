-- Lines and steps are written in the transaction, and by the code, that writes or locks their order, and no order is ever
-- deleted: a foreign key proves what cannot be otherwise. It costs one query inside the database for each row.

alter table order_lines drop constraint order_lines_order_id_fkey;
alter table order_steps drop constraint order_steps_order_id_fkey;
