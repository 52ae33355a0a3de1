-- The keys that sign access tokens. A new one is published for a while before it signs, so that everybody has heard of it
-- by then, and an old one until the last token it signed has ended.

create table signing_keys (
    -- RFC 7638's thumbprint of the public key.
    kid text primary key,
    -- The private key in PKCS #8, encrypted with AES-256-GCM by a key that is not in this database.
    sealed bytea not null,
    nonce bytea not null,
    created_at timestamptz not null default now(),
    signs_from timestamptz not null,
    retires_at timestamptz
);
