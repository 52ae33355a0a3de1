-- What inventory could not sell again when a refunded order's goods came back, because their product had been deleted: for
-- people who ask how the order stands.

alter table orders add column written_off jsonb;
