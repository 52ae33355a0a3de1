-- What was sold, paid and came back.

alter type hold_status add value 'returned' before 'rejected';
