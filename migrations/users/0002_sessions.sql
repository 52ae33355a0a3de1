-- Who is signed in where. A session is a family of refresh tokens, of which only the newest is good: one that comes a
-- second time was stolen, before or after, and ends the family (RFC 9700, section 4.14).

create table sessions (
    id uuid primary key,
    user_id uuid not null references users,
    -- The network address it was opened from: whoever has signed in from there before is not slowed by what others try.
    client text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz
);

create index sessions_by_user on sessions (user_id, client);
create index sessions_by_end on sessions (expires_at);

create table refresh_tokens (
    -- SHA-256 of the token, which has 256 random bits: nothing is gained by a slower hash.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    used_at timestamptz,
    created_at timestamptz not null default now()
);

create index refresh_tokens_by_session on refresh_tokens (session_id);
