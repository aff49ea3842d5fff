-- Ids, documents and states are TEXT; times (microseconds), flags (0/1) and counts are BIGINT.

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    handle TEXT NOT NULL,
    display_name TEXT NOT NULL,
    avatar_id TEXT,
    bio TEXT NOT NULL,
    locale TEXT NOT NULL,
    tz TEXT NOT NULL,
    birth_year BIGINT,
    state TEXT NOT NULL CHECK (state IN ('active', 'limited', 'suspended', 'closing', 'closed')),
    until_us BIGINT,
    items_published BIGINT NOT NULL,
    removals_30d BIGINT NOT NULL,
    unread BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

-- One namespace for accounts and creators; the skeleton is what looks alike.
CREATE TABLE handles (
    skeleton TEXT PRIMARY KEY,
    handle TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    reserved_until_us BIGINT
);
CREATE INDEX handles_owner ON handles (owner_id);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    owner_kind TEXT NOT NULL CHECK (owner_kind IN ('merchant', 'account', 'platform')),
    owner_id TEXT NOT NULL,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    last4 TEXT NOT NULL,
    scopes TEXT NOT NULL,
    ip_allow TEXT,
    expires_us BIGINT,
    revoked_us BIGINT,
    last_used_us BIGINT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE TABLE platform_roles (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    role TEXT NOT NULL CHECK (role IN ('operator', 'moderator', 'ads_reviewer', 'policy_author', 'policy_approver', 'auditor')),
    PRIMARY KEY (account_id, role)
);

-- Insert only.
CREATE TABLE audit_log (
    id TEXT PRIMARY KEY,
    actor TEXT NOT NULL,
    key_id TEXT,
    route TEXT NOT NULL,
    object_id TEXT NOT NULL,
    diff TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at_us BIGINT NOT NULL
);
CREATE INDEX audit_log_object ON audit_log (object_id, id);

CREATE TABLE creators (
    id TEXT PRIMARY KEY,
    handle TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('person', 'merchant', 'organisation', 'media', 'official')),
    name TEXT NOT NULL,
    bio TEXT NOT NULL,
    avatar_id TEXT,
    cover_id TEXT,
    category TEXT NOT NULL,
    merchant_id TEXT,
    verification TEXT NOT NULL CHECK (verification IN ('none', 'identity', 'business', 'expert', 'official')),
    verified_until_us BIGINT,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'closing', 'closed')),
    followers BIGINT NOT NULL,
    posts BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX creators_category ON creators (category, followers, id);

CREATE TABLE operators (
    creator_id TEXT NOT NULL REFERENCES creators (id),
    account_id TEXT NOT NULL REFERENCES accounts (id),
    preset TEXT NOT NULL,
    bits BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'expired', 'revoked', 'left')),
    expires_us BIGINT,
    invited_by TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (creator_id, account_id)
);
CREATE INDEX operators_account ON operators (account_id, state);

-- interrupt_grace_s 0: an interruption never ends the room.
CREATE TABLE rooms (
    id TEXT PRIMARY KEY,
    creator_id TEXT NOT NULL REFERENCES creators (id),
    title TEXT NOT NULL,
    cover_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('scheduled', 'rehearsal', 'live', 'interrupted', 'ended', 'cancelled')),
    starts_us BIGINT,
    auto_start BIGINT NOT NULL CHECK (auto_start IN (0, 1)),
    interrupt_grace_s BIGINT NOT NULL CHECK (interrupt_grace_s >= 0),
    live_us BIGINT,
    ended_us BIGINT,
    interrupted_us BIGINT,
    card_seq BIGINT NOT NULL,
    card_lead_ms BIGINT NOT NULL,
    price_honour_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX rooms_creator ON rooms (creator_id, id);
CREATE INDEX rooms_state ON rooms (state, starts_us);

CREATE TABLE publish_keys (
    id TEXT PRIMARY KEY,
    room_id TEXT NOT NULL REFERENCES rooms (id),
    secret_hash TEXT NOT NULL UNIQUE,
    revoked_us BIGINT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX publish_keys_room ON publish_keys (room_id, revoked_us);

CREATE TABLE room_access (
    room_id TEXT PRIMARY KEY REFERENCES rooms (id),
    publish BIGINT NOT NULL CHECK (publish IN (0, 1)),
    watch TEXT NOT NULL CHECK (watch IN ('public', 'token', 'closed')),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

-- Room time of an instance = its T + offset_us; first_us and last_us are wall time.
CREATE TABLE room_timelines (
    room_id TEXT NOT NULL REFERENCES rooms (id),
    instance TEXT NOT NULL,
    offset_us BIGINT NOT NULL,
    first_us BIGINT NOT NULL,
    last_us BIGINT,
    PRIMARY KEY (room_id, instance)
);

-- body is sealed with the node's key file: an answer may hold a secret that is shown once.
CREATE TABLE idempotency_keys (
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done')),
    status BIGINT,
    body TEXT,
    expires_us BIGINT,
    PRIMARY KEY (principal, route, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_us);

CREATE TABLE outbox (
    event_id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    subject_seq BIGINT NOT NULL,
    streams TEXT NOT NULL,
    body TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    UNIQUE (subject_id, subject_seq)
);
CREATE INDEX outbox_order ON outbox (created_us, subject_seq);

CREATE TABLE event_log (
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    subject_seq BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (stream, seq),
    UNIQUE (stream, event_id)
);

-- The last number given out per subject and per stream: counting rows would reuse numbers of
-- rows that were cleared away. last_us keeps the outbox order of a subject when clocks step back.
CREATE TABLE event_subjects (
    subject_id TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    last_us BIGINT NOT NULL
);
CREATE TABLE event_streams (
    stream TEXT PRIMARY KEY,
    seq BIGINT NOT NULL
);
