//! Accounts over HTTP: registering, logging in, profiles, sessions, keys.

mod logins;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, redacted};

pub(crate) const PASSWORD: &str = "a quiet heron";

/// Somebody with a session.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) token: String,
    codes: Vec<String>,
}

impl Person {
    pub(crate) async fn register(server: &TestServer, handle: &str) -> Self {
        let body = json!({ "handle": handle, "password": PASSWORD });
        let made = send(server, Method::POST, "/accounts", ("", &[]), Some(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let made = made.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let codes = made["recovery_codes"].as_array().unwrap();
        Self {
            id: text(&made["account"]["id"]),
            token: text(&made["session"]["token"]),
            codes: codes.iter().map(text).collect(),
        }
    }

    pub(crate) async fn get(&self, server: &TestServer, path: &str) -> Answer {
        send(server, Method::GET, path, (&self.token, &[]), None).await
    }

    pub(crate) async fn post(&self, server: &TestServer, path: &str, body: &Value) -> Answer {
        send(server, Method::POST, path, (&self.token, &[]), Some(body)).await
    }

    pub(crate) async fn delete(&self, server: &TestServer, path: &str) -> Answer {
        send(server, Method::DELETE, path, (&self.token, &[]), None).await
    }

    /// A change of the version with this tag.
    pub(crate) async fn patch(
        &self,
        server: &TestServer,
        (path, tag): (&str, &str),
        body: &Value,
    ) -> Answer {
        let headers = [("if-match", tag)];
        send(
            server,
            Method::PATCH,
            path,
            (&self.token, &headers),
            Some(body),
        )
        .await
    }
}

/// One request with a credential, or none if it is empty.
pub(crate) async fn send(
    server: &TestServer,
    method: Method,
    path: &str,
    (token, headers): (&str, &[(&str, &str)]),
    body: Option<&Value>,
) -> Answer {
    let url = server.url(&format!("/api/v1{path}"));
    let mut request = server.client.request(method, url);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// Status and code of a refusal.
pub(crate) fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

pub(crate) fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_registers_and_is_seen_by_everyone() {
    let server = TestServer::start().await;
    let body = json!({ "handle": "Anna", "password": PASSWORD, "display_name": "Anna B",
        "locale": "de-AT", "tz": "Europe/Vienna", "birth_year": 1990 });
    let made = send(&server, Method::POST, "/accounts", ("", &[]), Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let cookie = made.header("set-cookie");
    let token = made.json()["session"]["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("st_") && token.len() == 46);
    let kept = format!("lamplight_session={token}; Path=/; ");
    assert!(cookie.starts_with(&kept), "{cookie}");
    assert!(
        cookie.ends_with("; HttpOnly; Secure; SameSite=Lax"),
        "{cookie}"
    );
    let mut shown = made.json();
    let codes = shown["recovery_codes"].take();
    assert_eq!(codes.as_array().unwrap().len(), 8);
    insta::assert_json_snapshot!(redacted(shown));

    let id = made.json()["account"]["id"].as_str().unwrap().to_owned();
    for name in [id.as_str(), "anna", "ANNA"] {
        let seen = server.get(&format!("/api/v1/accounts/{name}")).await;
        assert_eq!(seen.status, 200);
        insta::assert_json_snapshot!("seen_by_everyone", redacted(seen.json()));
    }
    for name in ["nobody", "acc_01M86VRGYAE3AR7SWFHF7J4WXW", "a%20b"] {
        let none = server.get(&format!("/api/v1/accounts/{name}")).await;
        assert_eq!(refusal(&none), is(404, "not_found"));
    }
    let audit = "SELECT COUNT(*) FROM audit_log WHERE route = 'POST /api/v1/accounts' \
                 AND key_id IS NULL AND actor = object_id";
    assert_eq!(server.count(audit).await, 1);
    let told = "SELECT COUNT(*) FROM event_subjects WHERE subject_id LIKE 'acc_%'";
    assert_eq!(server.count(told).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_registration_twice_makes_one_account() {
    let server = TestServer::start().await;
    let body = json!({ "handle": "anna", "password": PASSWORD });
    let path = "/accounts";
    let headers = [("idempotency-key", "k")];
    let (one, other) = tokio::join!(
        send(&server, Method::POST, path, ("", &headers), Some(&body)),
        send(&server, Method::POST, path, ("", &headers), Some(&body)),
    );
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.text, other.text);
    let again = send(&server, Method::POST, path, ("", &[]), Some(&body)).await;
    assert_eq!(refusal(&again), is(409, "handle_taken"));
    let other = json!({ "handle": "anna", "password": "another heron" });
    let other = send(&server, Method::POST, path, ("", &headers), Some(&other)).await;
    assert_eq!(refusal(&other), is(422, "idempotency_key_reused"));
    let accounts = "SELECT COUNT(*) FROM accounts WHERE handle = 'anna'";
    assert_eq!(server.count(accounts).await, 1);
}

/// A hundred handles that all look alike, at once: one is taken.
#[tokio::test(flavor = "multi_thread")]
async fn of_handles_that_look_alike_one_is_taken() {
    let server = TestServer::start().await;
    let looks = ["pau1", "paul", "PAUL", "ｐａｕｌ", "paUl"];
    let tries = looks.iter().cycle().take(20).map(|handle| {
        let body = json!({ "handle": handle, "password": PASSWORD });
        let server = &server;
        async move { send(server, Method::POST, "/accounts", ("", &[]), Some(&body)).await }
    });
    let answers = futures_util::future::join_all(tries).await;
    let count = |status| answers.iter().filter(|it| it.status == status).count();
    assert_eq!((count(201), count(409)), (1, 19));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_registrations_are_refused_by_name() {
    let server = TestServer::start().await;
    let good = json!({ "handle": "anna", "password": PASSWORD });
    let cases = [
        ("handle", json!("a"), 422, "handle_invalid"),
        ("handle", json!("pаypal"), 422, "handle_invalid"),
        ("handle", json!("admin"), 422, "handle_reserved"),
        ("password", json!("too short"), 422, "password_weak"),
        ("password", json!("password123"), 422, "password_weak"),
        ("password", json!("xx-anna-xx-xx"), 422, "password_weak"),
        ("password", json!(1_234_567_890_123_i64), 400, "malformed"),
        ("display_name", json!(""), 422, "out_of_bounds"),
        ("locale", json!("no language"), 422, "out_of_bounds"),
        ("tz", json!("/"), 422, "out_of_bounds"),
        ("birth_year", json!(2099), 422, "out_of_bounds"),
        ("colour", json!("red"), 400, "unknown_field"),
    ];
    for (field, value, status, code) in cases {
        let mut body = good.clone();
        body[field] = value.clone();
        let answer = send(&server, Method::POST, "/accounts", ("", &[]), Some(&body)).await;
        assert_eq!(refusal(&answer), is(status, code), "{body}");
        if field == "password" {
            let secret = value.to_string();
            let secret = secret.trim_matches('"');
            assert!(!answer.text.contains(secret), "{}", answer.text);
        }
    }
    let whole = json!("a quiet heron");
    let answer = send(&server, Method::POST, "/accounts", ("", &[]), Some(&whole)).await;
    assert_eq!(refusal(&answer), is(400, "malformed"));
    assert!(!answer.text.contains("heron"), "{}", answer.text);
    let accounts = "SELECT COUNT(*) FROM accounts WHERE handle <> 'boss'";
    assert_eq!(server.count(accounts).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_can_be_closed() {
    let server = TestServer::start_with(&["accounts.open=false"]).await;
    let body = json!({ "handle": "anna", "password": PASSWORD });
    let answer = send(&server, Method::POST, "/accounts", ("", &[]), Some(&body)).await;
    assert_eq!(refusal(&answer), is(403, "registration_closed"));
    let made = server
        .command(&["admin", "create-account", "--handle", "anna"])
        .output()
        .unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    let mut words = said.split_whitespace();
    let password = words
        .find(|it| *it == "password")
        .and_then(|_| words.next());
    let body = json!({ "handle": "anna", "password": password.unwrap() });
    let entered = send(&server, Method::POST, "/sessions", ("", &[]), Some(&body)).await;
    assert_eq!(entered.status, 201, "{}", entered.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_given_on_the_machine_counts_at_once() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let account = anna.id.clone();
    let path = format!("/wallets/{account}/top_ups");
    let money = json!({ "amount": { "amount": 5, "currency": "CNY" }, "reason": "test" });
    assert_eq!(
        refusal(&anna.post(&server, &path, &money).await),
        is(403, "forbidden")
    );
    assert_eq!(anna.get(&server, "/ledger/accounts").await.status, 403);
    let grant = |handle: &str, role: &str| {
        let words = ["admin", "grant-role", "--handle", handle, "--role", role];
        server.command(&words).output().unwrap()
    };
    assert!(grant("Anna", "auditor").status.success());
    assert_eq!(anna.get(&server, "/ledger/accounts").await.status, 200);
    assert_eq!(anna.post(&server, &path, &money).await.status, 403);
    assert!(grant("anna", "operator").status.success());
    assert!(grant("anna", "operator").status.success());
    let headers = [("idempotency-key", "k")];
    let answer = send(
        &server,
        Method::POST,
        &path,
        (&anna.token, &headers),
        Some(&money),
    )
    .await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let roles = anna.get(&server, "/me").await.json()["roles"].clone();
    assert_eq!(roles, json!(["auditor", "operator"]));
    assert!(!grant("nobody", "operator").status.success());
    assert!(!grant("anna", "king").status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_changes_only_as_it_was_read() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let shown = anna.get(&server, "/me").await;
    assert_eq!(
        (shown.status, shown.header("etag").as_str()),
        (200, "\"1\"")
    );
    assert_eq!(
        refusal(&server.get("/api/v1/me").await),
        is(401, "unauthenticated")
    );

    let body = json!({ "bio": "I sell lamps.", "birth_year": 1980 });
    let without = send(
        &server,
        Method::PATCH,
        "/me",
        (&anna.token, &[]),
        Some(&body),
    )
    .await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    let changed = anna.patch(&server, ("/me", "\"1\""), &body).await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    assert_eq!(changed.json()["bio"], "I sell lamps.");
    let stale = anna.patch(&server, ("/me", "\"1\""), &body).await;
    assert_eq!(refusal(&stale), is(412, "stale"));
    assert_eq!(stale.header("etag"), "\"2\"");

    let cleared = json!({ "birth_year": null });
    let cleared = anna.patch(&server, ("/me", "\"2\""), &cleared).await.json();
    assert_eq!(
        (&cleared["birth_year"], &cleared["bio"]),
        (&Value::Null, &json!("I sell lamps."))
    );
    let bad = json!({ "display_name": "x".repeat(41) });
    let bad = anna.patch(&server, ("/me", "*"), &bad).await;
    assert_eq!(refusal(&bad), is(422, "out_of_bounds"));
    let bad = anna
        .patch(&server, ("/me", "*"), &json!({ "handle": "x" }))
        .await;
    assert_eq!(refusal(&bad), is(400, "unknown_field"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_what_its_scopes_say_until_it_is_deleted() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let body = json!({ "name": "phone", "scopes": ["rooms:manage", "posts:write"] });
    let made = anna.post(&server, "/me/api_keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    insta::assert_json_snapshot!(redacted(made.json()));
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let key = made.json()["id"].as_str().unwrap().to_owned();
    let with_key = async |method: Method, path: &str, body: Option<&Value>| {
        send(&server, method, path, (&secret, &[]), body).await
    };
    let me = with_key(Method::GET, "/me", None).await;
    assert_eq!(
        (me.status, me.json()["handle"].as_str()),
        (200, Some("anna"))
    );
    for (method, path, given) in [
        (Method::GET, "/me/sessions", None),
        (Method::GET, "/me/api_keys", None),
        (Method::POST, "/me/api_keys", Some(&body)),
    ] {
        assert_eq!(
            refusal(&with_key(method, path, given).await),
            is(403, "forbidden")
        );
    }

    let mut listed = anna.get(&server, "/me/api_keys").await.json();
    let last4 = listed["data"][0]["last4"].take();
    assert!(secret.ends_with(last4.as_str().unwrap()));
    insta::assert_json_snapshot!(redacted(listed));
    let bert = Person::register(&server, "bert").await;
    let path = format!("/me/api_keys/{key}");
    assert_eq!(
        refusal(&bert.delete(&server, &path).await),
        is(404, "not_found")
    );
    assert_eq!(anna.delete(&server, &path).await.status, 204);
    assert_eq!(
        refusal(&anna.delete(&server, &path).await),
        is(404, "not_found")
    );
    assert_eq!(with_key(Method::GET, "/me", None).await.status, 401);
    let left = anna.get(&server, "/me/api_keys").await.json();
    assert_eq!(left["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_keys_are_refused_and_there_are_twenty() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let good = json!({ "name": "k", "scopes": ["orders:read"] });
    let cases = [
        ("name", json!(""), 422, "out_of_bounds"),
        ("scopes", json!([]), 422, "out_of_bounds"),
        (
            "scopes",
            json!(vec!["orders:read"; 33]),
            422,
            "out_of_bounds",
        ),
        ("scopes", json!(["ledger:read"]), 422, "out_of_bounds"),
        ("creator_id", json!("anna"), 422, "out_of_bounds"),
        ("expires_at", json!("tomorrow"), 400, "malformed"),
        (
            "expires_at",
            json!("2020-01-01T00:00:00Z"),
            422,
            "out_of_bounds",
        ),
    ];
    for (field, value, status, code) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = anna.post(&server, "/me/api_keys", &body).await;
        assert_eq!(refusal(&answer), is(status, code), "{body}");
    }
    for _ in 0..20 {
        assert_eq!(anna.post(&server, "/me/api_keys", &good).await.status, 201);
    }
    let over = anna.post(&server, "/me/api_keys", &good).await;
    assert_eq!(refusal(&over), is(409, "limit_reached"));
    let mut seen = Vec::new();
    let mut path = "/me/api_keys?limit=8".to_owned();
    loop {
        let page = anna.get(&server, &path).await.json();
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["id"].clone()),
        );
        match page["page"]["next"].as_str() {
            Some(next) => path = format!("/me/api_keys?limit=8&after={next}"),
            None => break,
        }
    }
    let all = seen.len();
    seen.dedup();
    assert_eq!((all, seen.len()), (20, 20));
}
