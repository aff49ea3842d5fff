-- How people log in (community.md 4). Ids, hashes and texts are TEXT; times (microseconds) BIGINT.

CREATE TABLE credentials (
    account_id TEXT PRIMARY KEY REFERENCES accounts (id),
    phc TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE TABLE recovery_codes (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    code_hash TEXT NOT NULL,
    used_us BIGINT,
    PRIMARY KEY (account_id, code_hash)
);

-- A session that is over is deleted.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    ip_prefix TEXT NOT NULL,
    agent TEXT NOT NULL,
    last_seen_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX sessions_account ON sessions (account_id, id);

-- The one creator that a key of an account is for.
ALTER TABLE api_keys ADD COLUMN creator_id TEXT;
CREATE INDEX api_keys_owner ON api_keys (owner_id, id);

-- An invitation is the pending row; it is answered by its own id.
ALTER TABLE operators ADD COLUMN invite_id TEXT;
ALTER TABLE operators ADD COLUMN invite_until_us BIGINT;
CREATE UNIQUE INDEX operators_invite ON operators (invite_id);
