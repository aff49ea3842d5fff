//! Shops, products, prices and files of them over HTTP.

mod bulk;
mod merchants;
mod prices;
mod products;

use reqwest::Method;
use serde_json::{Value, json};

use crate::accounts::{Person, send};
use crate::support::{Answer, TestServer};

/// Somebody with a credential, or nobody.
#[derive(Clone)]
struct Caller<'a> {
    server: &'a TestServer,
    token: String,
}

impl<'a> Caller<'a> {
    fn operator(server: &'a TestServer) -> Self {
        let token = server.key.clone();
        Self { server, token }
    }

    fn nobody(server: &'a TestServer) -> Self {
        let token = String::new();
        Self { server, token }
    }

    fn with(server: &'a TestServer, token: &str) -> Self {
        let token = token.into();
        Self { server, token }
    }

    async fn ask(
        &self,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        send(self.server, method, path, (&self.token, headers), body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask((Method::GET, path), &[], None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask((Method::POST, path), &[], Some(body)).await
    }

    /// A step of the version with this tag.
    async fn step(&self, path: &str, tag: &str) -> Answer {
        self.ask((Method::POST, path), &[("if-match", tag)], None)
            .await
    }

    async fn put(&self, path: &str, header: (&str, &str), body: &Value) -> Answer {
        self.ask((Method::PUT, path), &[header], Some(body)).await
    }

    async fn patch(&self, path: &str, tag: &str, body: &Value) -> Answer {
        self.ask((Method::PATCH, path), &[("if-match", tag)], Some(body))
            .await
    }

    async fn delete(&self, path: &str, tag: &str) -> Answer {
        self.ask((Method::DELETE, path), &[("if-match", tag)], None)
            .await
    }

    /// A shop's id.
    async fn shop(&self, name: &str) -> String {
        let body = json!({ "name": name, "currency": "CNY" });
        id_of(&made(self.post("/merchants", &body).await))
    }

    /// A product as it was made, with one variant.
    async fn mug(&self, shop: &str, external_id: &str) -> Value {
        made(self.post("/products", &mug(shop, external_id)).await)
    }

    /// A window without an end, from now on.
    async fn price(&self, variant: &str, kind: &str, amount: i64) -> Answer {
        let body = json!({ "kind": kind, "price": yuan(amount) });
        self.post(&format!("/variants/{variant}/prices"), &body)
            .await
    }

    /// A product for sale at 19.99.
    async fn mug_on_sale(&self, shop: &str, external_id: &str) -> Value {
        let mug = self.mug(shop, external_id).await;
        made(self.price(&variant_of(&mug), "list", 1_999).await);
        let path = format!("/products/{}", id_of(&mug));
        let tag = self.get(&path).await.header("etag");
        let published = self.step(&format!("{path}/publish"), &tag).await;
        assert_eq!(published.status, 200, "{}", published.text);
        published.json()
    }
}

async fn register<'a>(server: &'a TestServer, handle: &str) -> (Caller<'a>, String) {
    let person = Person::register(server, handle).await;
    (Caller::with(server, &person.token), person.id)
}

fn yuan(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "CNY" })
}

fn mug(shop: &str, external_id: &str) -> Value {
    json!({
        "merchant_id": shop,
        "external_id": external_id,
        "title": "A mug",
        "description": "Blue, 350 ml",
        "media": [{ "url": "https://cdn.example/mug.jpg", "kind": "image", "alt": "A blue mug" }],
        "category": "kitchen",
        "attributes": { "material": "clay" },
        "requires_shipping": true,
        "variants": [{
            "external_id": format!("{external_id}-m"),
            "options": { "size": "M" },
            "weight_g": 350,
        }],
    })
}

fn made(answer: Answer) -> Value {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap().into()
}

fn variant_of(product: &Value) -> String {
    id_of(&product["variants"][0])
}

/// Status and code of a refusal.
fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}
