-- Accounts, what they are, and who changed that.

create type role as enum ('user', 'admin');

create table users (
    id uuid primary key,
    -- In lower case, so that nobody has two accounts by writing it in another way.
    email text not null constraint email_taken unique constraint email_length check (char_length(email) between 3 and 254),
    -- Argon2id in the PHC string format, which says its parameters.
    password_hash text not null,
    role role not null default 'user',
    disabled_at timestamptz,
    -- Access tokens that were signed before this, in seconds since 1970, count no more.
    tokens_not_before bigint not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Accounts whose tokens were revoked a short while ago are looked for all the time.
create index users_revoked on users (tokens_not_before) where tokens_not_before > 0;

create type account_change as enum (
    'registered',
    'password_changed',
    'role_changed',
    'disabled',
    'enabled',
    'session_stolen'  -- a refresh token was used twice
);

-- What happened to accounts, append-only.
create table account_changes (
    id bigint generated always as identity primary key,
    user_id uuid not null references users,
    change account_change not null,
    -- The role after it, where that changed.
    role role,
    -- The account that did it; null where the service did.
    actor_id uuid,
    trace_id text not null,
    at timestamptz not null default now()
);

create index account_changes_by_user on account_changes (user_id, id);
