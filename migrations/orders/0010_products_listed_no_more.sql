-- When inventory last told of a product, so that a fill finds what it did not list: a ProductDeleted that was lost.
--
-- By the clock of this database: the time of the transaction that kept an event, or the beginning of the fill that listed
-- the product. An instance of the version before sets it only when it adds a row, and that is enough: what is sold is listed.

alter table catalogue add column told_at timestamptz not null default now();
