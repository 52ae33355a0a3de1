-- Goods that came back for a product that was deleted meanwhile: they are booked in and written off at once.

-- Of which products of the order; null where of none.
alter table holds add column written_off bigint[];
