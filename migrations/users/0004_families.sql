-- A refresh token says which session it is of, so that a used one is told from an unknown one without being kept.

-- SHA-256 of what all refresh tokens of the session begin with. Null for sessions of versions before, whose used tokens are
-- kept for a while instead.
alter table sessions add column family bytea constraint session_families unique;

-- Finds used tokens that are old enough to go. Only tokens of sessions without a family are in it.
create index refresh_tokens_used on refresh_tokens (used_at) where used_at is not null;
