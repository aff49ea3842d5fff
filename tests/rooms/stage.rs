//! A live room with a shop beside it: what tests of shelves and cards need.

use std::time::Duration;

use lamplight_media::broadcast::Publisher;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer};

/// A creator's room and the shop it sells for.
pub(super) struct Stage {
    pub(super) server: TestServer,
    pub(super) creator: String,
    pub(super) room: String,
    pub(super) shop: String,
    publisher: Option<Publisher>,
}

/// A product and its one variant.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) product: String,
    pub(super) variant: String,
}

impl Stage {
    /// A room that is announced; its shop lets creators have 2 000 bps.
    pub(super) async fn new() -> Self {
        let server = TestServer::start().await;
        let creator = server.creator("anna").await;
        let room = server.room(&creator).await;
        let body = json!({ "name": "Mugs", "currency": "CNY" });
        let shop = made(&server.post("/api/v1/merchants", &body).await);
        let path = format!("/api/v1/merchants/{shop}");
        let change = json!({ "commission_cap_bps": 2_000 });
        let changed = change_of(&server, &path, ("\"1\"", &change)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        Self {
            server,
            creator,
            room,
            shop,
            publisher: None,
        }
    }

    /// The same, on air.
    pub(super) async fn live() -> Self {
        let mut stage = Self::new().await;
        stage.send().await;
        stage
    }

    /// Lets the publisher in.
    pub(super) async fn send(&mut self) {
        self.publisher = Some(self.server.send_silence(&self.room));
        self.server.reaches(&self.room, "live").await;
    }

    /// Takes the publisher out.
    pub(super) fn publisher(&mut self) -> Publisher {
        self.publisher.take().expect("somebody publishes")
    }

    /// A product that is sold for so much, of which there are five.
    pub(super) async fn thing(&self, title: &str, amount: i64) -> Thing {
        let server = &self.server;
        let body = json!({
            "merchant_id": self.shop,
            "title": title,
            "variants": [{ "options": { "size": "M" } }],
        });
        let product = server.post("/api/v1/products", &body).await;
        let variant = product.json()["variants"][0]["id"].clone();
        let variant = variant.as_str().unwrap().to_owned();
        let product = made(&product);
        let price = json!({ "kind": "list", "price": yuan(amount) });
        let path = format!("/api/v1/variants/{variant}");
        let priced = server.post(&format!("{path}/prices"), &price).await;
        assert_eq!(priced.status, 201, "{}", priced.text);
        let publish = format!("/api/v1/products/{product}/publish");
        let request = server.client.post(server.url(&publish));
        let request = request.bearer_auth(&server.key).header("If-Match", "*");
        let published = Answer::of(request.json(&json!({})).send().await.unwrap()).await;
        assert_eq!(published.status, 200, "{}", published.text);
        let stock = json!({ "delta": 5, "reason": "receive" });
        let path = format!("{path}/stock/adjustments");
        let stocked = server.post_once(title, &path, &stock).await;
        assert_eq!(stocked.status, 201, "{}", stocked.text);
        Thing { product, variant }
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/api/v1/rooms/{}{rest}", self.room)
    }

    /// Puts a thing on the shelf; the entry's id.
    pub(super) async fn shelve(&self, thing: &Thing) -> String {
        let answer = self.add(thing, &json!({})).await;
        made(&answer)
    }

    /// The same with more in the body.
    pub(super) async fn add(&self, thing: &Thing, more: &Value) -> Answer {
        let mut body = json!({
            "product_id": thing.product,
            "commission": { "creator_bps": 1_000, "affiliate_bps": 500 },
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.server.post(&self.path("/shelf"), &body).await
    }

    pub(super) async fn shelf(&self) -> Value {
        self.server.get(&self.path("/shelf")).await.json()["data"].clone()
    }

    /// Changes something of this version.
    pub(super) async fn change(&self, path: &str, tag: &str, body: &Value) -> Answer {
        change_of(&self.server, path, (tag, body)).await
    }

    /// A card command.
    pub(super) async fn card(&self, body: &Value) -> Answer {
        // One caller may put twenty cards a second.
        self.server.app().clock.advance(Duration::from_secs(1));
        self.server.post(&self.path("/cards"), body).await
    }

    pub(super) async fn pin(&self, entry: &str) -> Value {
        let pinned = self
            .card(&json!({ "action": "pin", "entry_id": entry }))
            .await;
        assert_eq!(pinned.status, 201, "{}", pinned.text);
        pinned.json()
    }

    /// The snapshot at a room time.
    pub(super) async fn seen(&self, at_us: i64) -> Value {
        let path = self.path(&format!("/cards?at_us={at_us}"));
        let seen = self.server.get(&path).await;
        assert_eq!(seen.status, 200, "{}", seen.text);
        seen.json()
    }

    /// Waits until room time is there.
    pub(super) async fn reach(&self, at_us: i64) {
        let path = self.path("/clock");
        let reached = async {
            let now_us = async || self.server.get(&path).await.json()["room_now_us"].as_i64();
            while now_us().await.unwrap() < at_us {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
        reached.expect("room time runs");
    }

    /// The room's envelopes, to the byte.
    pub(super) async fn envelopes(&self) -> Vec<String> {
        let sql = "SELECT envelope FROM card_events WHERE room_id = $1 ORDER BY seq";
        let query = sqlx::query_as::<_, (String,)>(sql).bind(self.room.clone());
        let rows = query.fetch_all(self.server.app().db.readers()).await;
        rows.unwrap().into_iter().map(|(text,)| text).collect()
    }
}

pub(super) fn yuan(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "CNY" })
}

/// The id of what was made.
pub(super) fn made(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().into()
}

async fn change_of(server: &TestServer, path: &str, (tag, body): (&str, &Value)) -> Answer {
    let request = server.client.request(Method::PATCH, server.url(path));
    let request = request.bearer_auth(&server.key).header("If-Match", tag);
    Answer::of(request.json(body).send().await.unwrap()).await
}
