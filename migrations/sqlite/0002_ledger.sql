-- The ledger (payments.md 11, 16).

CREATE TABLE ledger_accounts (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    currency TEXT NOT NULL,
    kind TEXT NOT NULL,
    flag_dc BIGINT NOT NULL CHECK (flag_dc IN (0, 1)),
    flag_cd BIGINT NOT NULL CHECK (flag_cd IN (0, 1)),
    closed BIGINT NOT NULL CHECK (closed IN (0, 1)),
    debits_posted BIGINT NOT NULL CHECK (debits_posted >= 0),
    credits_posted BIGINT NOT NULL CHECK (credits_posted >= 0),
    debits_pending BIGINT NOT NULL CHECK (debits_pending >= 0),
    credits_pending BIGINT NOT NULL CHECK (credits_pending >= 0),
    created_us BIGINT NOT NULL,
    UNIQUE (path, currency),
    CHECK (flag_dc = 0 OR debits_posted + debits_pending <= credits_posted),
    CHECK (flag_cd = 0 OR credits_posted + credits_pending <= debits_posted)
);

-- Insert only.
CREATE TABLE ledger_transfers (
    id TEXT PRIMARY KEY,
    seq BIGINT NOT NULL UNIQUE,
    chain TEXT NOT NULL,
    pos BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('posted', 'pending', 'post', 'void', 'expire')),
    debit TEXT NOT NULL REFERENCES ledger_accounts (id),
    credit TEXT NOT NULL REFERENCES ledger_accounts (id),
    amount BIGINT NOT NULL CHECK (amount >= 1),
    currency TEXT NOT NULL,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    pending_id TEXT,
    timeout_us BIGINT,
    created_us BIGINT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    UNIQUE (chain, pos)
);
CREATE INDEX ledger_transfers_debit ON ledger_transfers (debit, seq);
CREATE INDEX ledger_transfers_credit ON ledger_transfers (credit, seq);
CREATE INDEX ledger_transfers_subject ON ledger_transfers (subject);

-- Insert only: a pending transfer is resolved at most once.
CREATE TABLE ledger_resolutions (
    pending_id TEXT PRIMARY KEY REFERENCES ledger_transfers (id),
    transfer_id TEXT NOT NULL REFERENCES ledger_transfers (id)
);

-- The newest transfer; one row.
CREATE TABLE ledger_head (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO ledger_head (one, seq, hash) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Insert only.
CREATE TABLE ledger_days (
    date TEXT PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    totals TEXT NOT NULL,
    signature TEXT,
    created_us BIGINT NOT NULL
);
