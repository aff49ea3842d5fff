-- Ids, documents and states are TEXT; times (microseconds), flags (0/1) and counts are BIGINT.

CREATE TABLE merchants (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    currency TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'frozen')),
    shipping_fee BIGINT NOT NULL CHECK (shipping_fee >= 0),
    settle_after_days BIGINT NOT NULL,
    reserve_bps BIGINT NOT NULL,
    fee_bps BIGINT NOT NULL,
    commission_cap_bps BIGINT NOT NULL,
    auto_confirm_days BIGINT NOT NULL,
    external_id TEXT UNIQUE,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE TABLE merchant_staff (
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    account_id TEXT NOT NULL REFERENCES accounts (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'catalogue', 'fulfilment', 'finance', 'support')),
    PRIMARY KEY (merchant_id, account_id)
);
CREATE INDEX merchant_staff_account ON merchant_staff (account_id);

CREATE TABLE commission_caps (
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    creator_id TEXT NOT NULL,
    cap_bps BIGINT NOT NULL,
    PRIMARY KEY (merchant_id, creator_id)
);

CREATE TABLE products (
    id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    external_id TEXT,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    media TEXT NOT NULL,
    category TEXT,
    attributes TEXT NOT NULL,
    requires_shipping BIGINT NOT NULL CHECK (requires_shipping IN (0, 1)),
    status TEXT NOT NULL CHECK (status IN ('draft', 'active', 'archived')),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (merchant_id, external_id)
);
CREATE INDEX products_merchant ON products (merchant_id, status, id);

CREATE TABLE variants (
    id TEXT PRIMARY KEY,
    product_id TEXT NOT NULL REFERENCES products (id),
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    external_id TEXT,
    options TEXT NOT NULL,
    barcode TEXT,
    weight_g BIGINT,
    status TEXT NOT NULL CHECK (status IN ('active', 'archived')),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (merchant_id, external_id)
);
CREATE INDEX variants_product ON variants (product_id, id);

-- Windows of one kind never overlap: the writing transaction refuses it.
CREATE TABLE prices (
    id TEXT PRIMARY KEY,
    variant_id TEXT NOT NULL REFERENCES variants (id),
    kind TEXT NOT NULL CHECK (kind IN ('list', 'sale')),
    amount BIGINT NOT NULL CHECK (amount >= 1),
    currency TEXT NOT NULL,
    compare_at BIGINT,
    starts_us BIGINT NOT NULL,
    ends_us BIGINT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX prices_variant ON prices (variant_id, kind, starts_us);

-- Counters are a cache of stock_movements; only the sequencer writes them. epoch is that of the
-- owner who wrote last.
CREATE TABLE stock (
    variant_id TEXT PRIMARY KEY REFERENCES variants (id),
    location_id TEXT NOT NULL,
    on_hand BIGINT NOT NULL CHECK (on_hand >= 0),
    reserved BIGINT NOT NULL CHECK (reserved >= 0),
    committed BIGINT NOT NULL CHECK (committed >= 0),
    ring_fenced BIGINT NOT NULL CHECK (ring_fenced >= 0),
    safety BIGINT NOT NULL CHECK (safety >= 0),
    incoming BIGINT NOT NULL CHECK (incoming >= 0),
    per_buyer_limit BIGINT CHECK (per_buyer_limit BETWEEN 1 AND 999),
    movement_seq BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    CHECK (on_hand - reserved - committed - ring_fenced >= 0)
);

-- Insert only.
CREATE TABLE stock_movements (
    id TEXT PRIMARY KEY,
    variant_id TEXT NOT NULL REFERENCES variants (id),
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('receive', 'adjust', 'reserve', 'release', 'confirm', 'ship', 'restock', 'fence', 'unfence')),
    d_on_hand BIGINT NOT NULL,
    d_reserved BIGINT NOT NULL,
    d_committed BIGINT NOT NULL,
    d_ring_fenced BIGINT NOT NULL,
    reason TEXT NOT NULL,
    note TEXT,
    ref_kind TEXT,
    ref_id TEXT,
    actor TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    UNIQUE (variant_id, seq)
);

CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE,
    buyer_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'confirmed', 'released')),
    reason TEXT,
    expires_us BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX reservations_due ON reservations (state, expires_us);

-- deal_id is empty where no deal is.
CREATE TABLE reservation_lines (
    reservation_id TEXT NOT NULL REFERENCES reservations (id),
    variant_id TEXT NOT NULL REFERENCES variants (id),
    deal_id TEXT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity >= 1),
    PRIMARY KEY (reservation_id, variant_id, deal_id)
);
CREATE INDEX reservation_lines_variant ON reservation_lines (variant_id);

-- Units reserved and confirmed; scope_id is a variant or a deal.
CREATE TABLE buyer_units (
    buyer_id TEXT NOT NULL,
    scope_id TEXT NOT NULL,
    units BIGINT NOT NULL CHECK (units >= 0),
    PRIMARY KEY (buyer_id, scope_id)
);

CREATE TABLE sequencer_leases (
    shard TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);
