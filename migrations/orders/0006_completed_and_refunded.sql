-- What becomes of orders that are paid. By itself, because a new value of a type can be used only once it is committed.

alter type order_status add value 'completed';  -- it is paid
alter type order_status add value 'refunded';   -- its payment was given back
