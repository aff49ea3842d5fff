//! A shop with stock, and buyers with money, written past the API: for what is bought in them.

use lamplight::ids::{AccountId, MerchantId, ProductId, SessionId, VariantId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Answer, NOON, TestServer};

/// One shop, one product, variants of one price.
pub(crate) struct Shop {
    pub(crate) variants: Vec<String>,
}

pub(crate) const PRICE: i64 = 1_999;
pub(crate) const SHIPPING: i64 = 500;

impl Shop {
    /// With so many variants, and so many units of each.
    pub(crate) async fn open(server: &TestServer, variants: usize, units: i64) -> Self {
        let mut tx = server.app().db.begin().await.unwrap();
        let now = NOON.as_micros();
        let merchant = MerchantId::new(NOON).to_string();
        let sql = "INSERT INTO merchants (id, name, currency, status, shipping_fee, \
                   settle_after_days, reserve_bps, fee_bps, commission_cap_bps, \
                   auto_confirm_days, version, created_us, updated_us) \
                   VALUES ($1, 'A shop', 'CNY', 'active', $2, 7, 0, 500, 0, 7, 1, $3, $3)";
        let query = sqlx::query(sql).bind(&merchant).bind(SHIPPING).bind(now);
        query.execute(&mut *tx).await.unwrap();
        let product = ProductId::new(NOON).to_string();
        let sql = "INSERT INTO products (id, merchant_id, title, description, media, \
                   attributes, requires_shipping, status, version, created_us, updated_us) \
                   VALUES ($1, $2, 'A mug', '', '[]', '{}', 0, 'active', 1, $3, $3)";
        let query = sqlx::query(sql).bind(&product).bind(&merchant).bind(now);
        query.execute(&mut *tx).await.unwrap();
        let mut made = Vec::new();
        for n in 0..variants {
            let variant = VariantId::new(NOON).to_string();
            let sql = "INSERT INTO variants (id, product_id, merchant_id, options, status, \
                       version, created_us, updated_us) \
                       VALUES ($1, $2, $3, '[]', 'active', 1, $4, $4)";
            let query = sqlx::query(sql).bind(&variant).bind(&product);
            let query = query.bind(&merchant).bind(now);
            query.execute(&mut *tx).await.unwrap();
            let sql = "INSERT INTO prices (id, variant_id, kind, amount, currency, starts_us, \
                       version, created_us, updated_us) \
                       VALUES ($1, $2, 'list', $3, 'CNY', 0, 1, $4, $4)";
            let price = lamplight::ids::PriceId::new(NOON).to_string();
            let query = sqlx::query(sql).bind(price).bind(&variant);
            query.bind(PRICE).bind(now).execute(&mut *tx).await.unwrap();
            let sql = "INSERT INTO stock (variant_id, location_id, on_hand, reserved, \
                       committed, ring_fenced, safety, incoming, movement_seq, epoch, version, \
                       created_us, updated_us) \
                       VALUES ($1, 'default', 0, 0, 0, 0, 0, 0, 0, 0, 1, $2, $2)";
            let query = sqlx::query(sql).bind(&variant).bind(now);
            query.execute(&mut *tx).await.unwrap();
            made.push((n, variant));
        }
        tx.commit().await.unwrap();
        for (n, variant) in &made {
            let path = format!("/api/v1/variants/{variant}/stock/adjustments");
            let body = json!({ "delta": units, "reason": "receive" });
            let key = format!("receive-{merchant}-{n}");
            let received = server.post_once(&key, &path, &body).await;
            assert_eq!(received.status, 201, "{}", received.text);
        }
        Self {
            variants: made.into_iter().map(|(_, variant)| variant).collect(),
        }
    }

    /// Its goods are sent from here on.
    pub(crate) async fn sends(&self, server: &TestServer) {
        let mut tx = server.app().db.begin().await.unwrap();
        let query = sqlx::query("UPDATE products SET requires_shipping = 1");
        query.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A wish for some of one variant, sent somewhere.
    pub(crate) fn wish_sent(&self, variant: usize, quantity: i64) -> Value {
        let mut wish = self.wish(variant, quantity);
        wish["ship_to"] = json!({ "name": "A buyer", "phone": "12345", "region": "Here",
            "address": "A street" });
        wish
    }

    /// A wish for some of one variant.
    pub(crate) fn wish(&self, variant: usize, quantity: i64) -> Value {
        json!({ "lines": [{ "variant_id": self.variants[variant], "quantity": quantity,
            "unit_price": { "amount": PRICE, "currency": "CNY" } }] })
    }
}

/// Somebody who buys.
#[derive(Clone, Debug)]
pub(crate) struct Buyer {
    pub(crate) id: String,
    token: String,
}

impl Buyer {
    /// So many accounts, each with an open session.
    pub(crate) async fn register(server: &TestServer, count: usize) -> Vec<Self> {
        let mut tx = server.app().db.begin().await.unwrap();
        let now = NOON.as_micros();
        let mut buyers = Vec::new();
        for _ in 0..count {
            let id = AccountId::new(NOON).to_string();
            let sql = "INSERT INTO accounts (id, handle, display_name, bio, locale, tz, state, \
                       items_published, removals_30d, unread, version, created_us, updated_us) \
                       VALUES ($1, $1, $1, '', 'en', 'UTC', 'active', 0, 0, 0, 1, $2, $2)";
            let query = sqlx::query(sql).bind(&id).bind(now);
            query.execute(&mut *tx).await.unwrap();
            let token = format!("st_{id}");
            let hash = Sha256::digest(token.as_bytes());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            let sql = "INSERT INTO sessions (id, token_hash, account_id, ip_prefix, agent, \
                       last_seen_us, expires_us, created_us) \
                       VALUES ($1, $2, $3, '', '', $4, $5, $4)";
            let query = sqlx::query(sql)
                .bind(SessionId::new(NOON).to_string())
                .bind(hash)
                .bind(&id)
                .bind(now)
                .bind(now + 100 * 86_400_000_000);
            query.execute(&mut *tx).await.unwrap();
            buyers.push(Self { id, token });
        }
        tx.commit().await.unwrap();
        buyers
    }

    /// Puts money into the wallet.
    pub(crate) async fn has(&self, server: &TestServer, amount: i64) {
        let path = format!("/api/v1/wallets/{}/top_ups", self.id);
        let body = json!({ "amount": { "amount": amount, "currency": "CNY" }, "reason": "test" });
        let key = format!("top-up-{}", self.id);
        let done = server.post_once(&key, &path, &body).await;
        assert_eq!(done.status, 201, "{}", done.text);
    }

    pub(crate) async fn get(&self, server: &TestServer, path: &str) -> Answer {
        let request = server.client.get(server.url(path)).bearer_auth(&self.token);
        Answer::of(request.send().await.unwrap()).await
    }

    /// A write with an `Idempotency-Key`.
    pub(crate) async fn post(
        &self,
        server: &TestServer,
        key: &str,
        (path, body): (&str, &Value),
    ) -> Answer {
        let request = server
            .client
            .post(server.url(path))
            .bearer_auth(&self.token);
        let request = request.header("Idempotency-Key", key).json(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Places a checkout; its id.
    pub(crate) async fn places(&self, server: &TestServer, key: &str, wish: &Value) -> String {
        let placed = self.post(server, key, ("/api/v1/checkouts", wish)).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        placed.json()["checkout_id"].as_str().unwrap().into()
    }

    pub(crate) async fn pays(&self, server: &TestServer, key: &str, checkout: &str) -> Answer {
        let path = format!("/api/v1/checkouts/{checkout}/payments");
        let body = json!({ "provider": "wallet", "method": "balance" });
        self.post(server, key, (&path, &body)).await
    }
}
