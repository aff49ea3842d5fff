-- Ids, documents and states are TEXT; times (microseconds), flags (0/1) and counts are BIGINT.

-- variant_ids is a list of ids; an empty one stands for all variants of the product.
CREATE TABLE shelf_entries (
    id TEXT PRIMARY KEY,
    room_id TEXT NOT NULL REFERENCES rooms (id),
    product_id TEXT NOT NULL REFERENCES products (id),
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    variant_ids TEXT NOT NULL,
    number BIGINT CHECK (number BETWEEN 1 AND 9999),
    -- Positions are compared as bytes, whatever the language of the database.
    position TEXT COLLATE "C" NOT NULL,
    hidden BIGINT NOT NULL CHECK (hidden IN (0, 1)),
    note TEXT,
    creator_bps BIGINT NOT NULL CHECK (creator_bps >= 0),
    affiliate_bps BIGINT NOT NULL CHECK (affiliate_bps >= 0),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (room_id, number)
);
CREATE INDEX shelf_entries_position ON shelf_entries (room_id, position);
CREATE INDEX shelf_entries_product ON shelf_entries (product_id);

-- Insert only. envelope holds the exact bytes that every carrier delivers.
CREATE TABLE card_events (
    room_id TEXT NOT NULL REFERENCES rooms (id),
    seq BIGINT NOT NULL,
    action TEXT NOT NULL,
    entry_id TEXT,
    at_us BIGINT NOT NULL,
    issued_us BIGINT NOT NULL,
    ttl_us BIGINT NOT NULL,
    actor TEXT NOT NULL,
    envelope TEXT NOT NULL,
    PRIMARY KEY (room_id, seq)
);
CREATE INDEX card_events_fold ON card_events (room_id, at_us, seq);

-- The state behind the event `seq`, which is in force from at_us on: events count in the order of
-- (at_us, seq). Written once no event can be put before it any more.
CREATE TABLE card_checkpoints (
    room_id TEXT NOT NULL REFERENCES rooms (id),
    seq BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (room_id, seq)
);
CREATE INDEX card_checkpoints_time ON card_checkpoints (room_id, at_us, seq);
