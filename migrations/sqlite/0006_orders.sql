-- Ids, documents and states are TEXT; times (microseconds), flags (0/1), amounts (minor units) and
-- counts are BIGINT.

CREATE TABLE checkouts (
    id TEXT PRIMARY KEY,
    buyer_id TEXT NOT NULL REFERENCES accounts (id),
    state TEXT NOT NULL CHECK (state IN ('open', 'closing', 'paid', 'expired', 'cancelled')),
    due BIGINT NOT NULL CHECK (due >= 0),
    currency TEXT NOT NULL,
    client_ref TEXT,
    pay_before_us BIGINT NOT NULL,
    close_reason TEXT CHECK (close_reason IN ('expired', 'cancelled')),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (buyer_id, client_ref)
);
CREATE INDEX checkouts_buyer ON checkouts (buyer_id, state);
CREATE INDEX checkouts_due ON checkouts (state, pay_before_us);

CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    checkout_id TEXT NOT NULL REFERENCES checkouts (id),
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    buyer_id TEXT NOT NULL REFERENCES accounts (id),
    creator_id TEXT,
    room_id TEXT,
    affiliate_id TEXT,
    reservation_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('reserved', 'awaiting_payment', 'closing', 'paid', 'fulfilling', 'completed', 'closed', 'expired', 'cancelled')),
    payment_status TEXT NOT NULL CHECK (payment_status IN ('unpaid', 'paid', 'partially_refunded', 'refunded')),
    fulfilment TEXT NOT NULL CHECK (fulfilment IN ('none', 'partial', 'shipped', 'delivered', 'confirmed')),
    disputed BIGINT NOT NULL CHECK (disputed IN (0, 1)),
    late BIGINT NOT NULL CHECK (late IN (0, 1)),
    -- Nothing of it is sent.
    is_virtual BIGINT NOT NULL CHECK (is_virtual IN (0, 1)),
    items BIGINT NOT NULL CHECK (items >= 0),
    discount_merchant BIGINT NOT NULL CHECK (discount_merchant >= 0),
    discount_platform BIGINT NOT NULL CHECK (discount_platform >= 0),
    shipping BIGINT NOT NULL CHECK (shipping >= 0),
    due BIGINT NOT NULL CHECK (due = items + shipping - discount_platform),
    refunded BIGINT NOT NULL CHECK (refunded >= 0),
    currency TEXT NOT NULL,
    ship_to TEXT,
    paid_us BIGINT,
    shipped_us BIGINT,
    delivered_us BIGINT,
    auto_confirm_us BIGINT,
    completed_us BIGINT,
    external_id TEXT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX orders_checkout ON orders (checkout_id);
CREATE INDEX orders_merchant ON orders (merchant_id, id);
CREATE INDEX orders_buyer ON orders (buyer_id, id);
CREATE INDEX orders_creator ON orders (creator_id, id);
CREATE INDEX orders_confirm ON orders (status, auto_confirm_us);

CREATE TABLE order_lines (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders (id),
    variant_id TEXT NOT NULL REFERENCES variants (id),
    product_title TEXT NOT NULL,
    options TEXT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity >= 1),
    unit_price BIGINT NOT NULL CHECK (unit_price >= 0),
    base BIGINT NOT NULL CHECK (base = quantity * unit_price - discount_merchant),
    discount_merchant BIGINT NOT NULL CHECK (discount_merchant >= 0),
    discount_platform BIGINT NOT NULL CHECK (discount_platform >= 0),
    price_explain TEXT NOT NULL,
    offer_hash TEXT,
    deal_id TEXT,
    entry_id TEXT,
    creator_bps BIGINT NOT NULL,
    affiliate_bps BIGINT NOT NULL,
    platform_bps BIGINT NOT NULL,
    shipped BIGINT NOT NULL CHECK (shipped >= 0),
    refunded_quantity BIGINT NOT NULL CHECK (refunded_quantity >= 0),
    refunded_amount BIGINT NOT NULL CHECK (refunded_amount >= 0)
);
CREATE INDEX order_lines_order ON order_lines (order_id, id);

-- Insert only.
CREATE TABLE order_history (
    order_id TEXT NOT NULL REFERENCES orders (id),
    seq BIGINT NOT NULL,
    from_status TEXT,
    event TEXT NOT NULL,
    to_status TEXT NOT NULL,
    actor TEXT NOT NULL,
    data TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (order_id, seq)
);

CREATE TABLE payments (
    id TEXT PRIMARY KEY,
    checkout_id TEXT NOT NULL UNIQUE REFERENCES checkouts (id),
    buyer_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'captured', 'expired', 'cancelled', 'returned')),
    amount BIGINT NOT NULL CHECK (amount >= 0),
    captured BIGINT NOT NULL CHECK (captured >= 0),
    refunded BIGINT NOT NULL CHECK (refunded >= 0),
    overpaid BIGINT NOT NULL CHECK (overpaid >= 0),
    currency TEXT NOT NULL,
    captured_us BIGINT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE TABLE payment_attempts (
    id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    n BIGINT NOT NULL,
    provider TEXT NOT NULL CHECK (provider IN ('wallet', 'alipay', 'stripe')),
    method TEXT NOT NULL CHECK (method IN ('balance', 'qr', 'page', 'wap', 'card')),
    state TEXT NOT NULL CHECK (state IN ('created', 'unknown', 'open', 'failed', 'closed', 'paid', 'conflicted')),
    amount BIGINT NOT NULL,
    currency TEXT NOT NULL,
    provider_ref TEXT,
    instructions_enc TEXT,
    expires_us BIGINT NOT NULL,
    unpayable_us BIGINT,
    handed_out_us BIGINT,
    next_us BIGINT,
    tries BIGINT NOT NULL,
    error TEXT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (payment_id, n)
);
CREATE INDEX payment_attempts_due ON payment_attempts (state, next_us);

CREATE TABLE shipments (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders (id),
    carrier TEXT NOT NULL,
    tracking_no TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'delivered')),
    delivered_us BIGINT,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX shipments_order ON shipments (order_id, id);

CREATE TABLE shipment_lines (
    shipment_id TEXT NOT NULL REFERENCES shipments (id),
    line_id TEXT NOT NULL REFERENCES order_lines (id),
    quantity BIGINT NOT NULL CHECK (quantity >= 1),
    PRIMARY KEY (shipment_id, line_id)
);

-- One for each completed order: who has which part of it, and from when on.
CREATE TABLE settlements (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE REFERENCES orders (id),
    state TEXT NOT NULL CHECK (state IN ('scheduled', 'frozen', 'released')),
    currency TEXT NOT NULL,
    due_us BIGINT NOT NULL,
    released_us BIGINT,
    frozen BIGINT NOT NULL CHECK (frozen >= 0),
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX settlements_due ON settlements (state, due_us);

CREATE TABLE settlement_parts (
    settlement_id TEXT NOT NULL REFERENCES settlements (id),
    party_kind TEXT NOT NULL CHECK (party_kind IN ('merchant', 'creator', 'affiliate', 'platform')),
    party_id TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount >= 0),
    reversed BIGINT NOT NULL CHECK (reversed BETWEEN 0 AND amount),
    PRIMARY KEY (settlement_id, party_kind, party_id)
);
