//! Logging in and out: sessions, cookies, wrong passwords, recovery, suspension.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{PASSWORD, Person, is, refusal, send};
use crate::support::{Answer, TestServer, redacted};

async fn log_in(server: &TestServer, handle: &str, password: &str) -> Answer {
    let body = json!({ "handle": handle, "password": password });
    send(server, Method::POST, "/sessions", ("", &[]), Some(&body)).await
}

async fn execute(server: &TestServer, sql: &'static str) {
    use sqlx::Executor;
    let mut tx = server.app().db.begin().await.unwrap();
    tx.execute(sql).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_until_it_is_ended() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let entered = log_in(&server, "ANNA", PASSWORD).await;
    assert_eq!(entered.status, 201, "{}", entered.text);
    insta::assert_json_snapshot!(redacted(entered.json()));
    let second = Person {
        token: entered.json()["session"]["token"].as_str().unwrap().into(),
        ..anna
    };
    let listed = second.get(&server, "/me/sessions").await.json();
    let current: Vec<_> = listed["data"].as_array().unwrap().iter().collect();
    assert_eq!(current.len(), 2);
    assert_eq!(current[0]["is_current"], true);
    assert_eq!(current[1]["is_current"], false);
    assert_eq!(current[0]["ip_prefix"], "127.0.0.0/24");

    let first = format!("/me/sessions/{}", current[1]["id"].as_str().unwrap());
    let bert = Person::register(&server, "bert").await;
    assert_eq!(
        refusal(&bert.delete(&server, &first).await),
        is(404, "not_found")
    );
    assert_eq!(second.delete(&server, &first).await.status, 204);
    assert_eq!(
        refusal(&second.delete(&server, &first).await),
        is(404, "not_found")
    );
    let out = second.delete(&server, "/sessions/current").await;
    assert_eq!(out.status, 204);
    assert!(
        out.header("set-cookie")
            .starts_with("lamplight_session=; Path=/; Max-Age=0")
    );
    let again = second.delete(&server, "/sessions/current").await;
    assert_eq!(refusal(&again), is(401, "unauthenticated"));
    assert_eq!(
        refusal(&server.delete("/api/v1/sessions/current").await),
        is(403, "forbidden")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_themselves_when_idle_or_old() {
    let server = TestServer::start().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let anna = Person::register(&server, "anna").await;
    // Used every 29 days it lasts 180, and no longer.
    for _ in 0..6 {
        server.app().clock.advance(day * 29);
        assert_eq!(anna.get(&server, "/me").await.status, 200);
    }
    server.app().clock.advance(day * 6);
    assert_eq!(anna.get(&server, "/me").await.status, 401);

    let bert = Person::register(&server, "bert").await;
    server.app().clock.advance(day * 30);
    assert_eq!(bert.get(&server, "/me").await.status, 401);
    let entered = log_in(&server, "bert", PASSWORD).await;
    assert_eq!(entered.status, 201);
    let kept = "SELECT COUNT(*) FROM sessions s JOIN accounts a ON a.id = s.account_id \
                WHERE a.handle = 'bert'";
    assert_eq!(server.count(kept).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_one_sessions_the_oldest_goes() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    for _ in 0..20 {
        assert_eq!(log_in(&server, "anna", PASSWORD).await.status, 201);
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM sessions").await, 20);
    assert_eq!(anna.get(&server, "/me").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_handle_answer_alike() {
    let server = TestServer::start().await;
    Person::register(&server, "anna").await;
    let plain = |answer: &Answer| {
        let mut body = answer.json();
        body["request_id"] = json!("");
        (answer.status, body)
    };
    let wrong = log_in(&server, "anna", "not the heron").await;
    assert_eq!(refusal(&wrong), is(401, "credentials_wrong"));
    // The operator has no password; the last is no handle.
    for handle in ["nobody", "boss", "a handle?"] {
        let begun = Instant::now();
        let unknown = log_in(&server, handle, "not the heron").await;
        assert_eq!(plain(&unknown), plain(&wrong), "{handle}");
        // One hash takes milliseconds even where it is quick.
        assert!(begun.elapsed() > Duration::from_millis(5), "{handle}");
    }
    assert!(!wrong.text.contains("heron"));
    let bad = json!({ "handle": "anna", "password": ["not the heron"] });
    let bad = send(&server, Method::POST, "/sessions", ("", &[]), Some(&bad)).await;
    assert_eq!(refusal(&bad), is(400, "malformed"));
    assert!(!bad.text.contains("heron"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_for_each_handle() {
    let server = TestServer::start().await;
    Person::register(&server, "anna").await;
    Person::register(&server, "bert").await;
    // Right ones do not count.
    for _ in 0..7 {
        assert_eq!(log_in(&server, "bert", PASSWORD).await.status, 201);
    }
    for left in (0..5).rev() {
        let wrong = log_in(&server, "Anna", "not the heron").await;
        assert_eq!(refusal(&wrong), is(401, "credentials_wrong"));
        let header = wrong.header("ratelimit");
        assert!(
            header.starts_with(&format!("\"login\";r={left};t=")),
            "{header}"
        );
    }
    let slow = log_in(&server, "anna", PASSWORD).await;
    assert_eq!(refusal(&slow), is(429, "rate_limited"));
    assert_eq!(slow.header("retry-after"), "180");
    assert_eq!(slow.header("ratelimit-policy"), "\"login\";q=5;w=900");
    assert_eq!(log_in(&server, "bert", PASSWORD).await.status, 201);
    server.app().clock.advance(Duration::from_secs(180));
    assert_eq!(log_in(&server, "anna", PASSWORD).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guesses_of_one_address_are_slowed_down_unless_it_is_this_machine() {
    let server = TestServer::start_with(&["http.trusted_proxies=[\"127.0.0.1\"]"]).await;
    let headers = [("x-forwarded-for", "203.0.113.7")];
    let guess = async |n: usize, headers: &[(&str, &str)]| {
        let body = json!({ "handle": format!("nobody{n}"), "password": "not the heron" });
        send(
            &server,
            Method::POST,
            "/sessions",
            ("", headers),
            Some(&body),
        )
        .await
        .status
    };
    for n in 0..30 {
        assert_eq!(guess(n, &headers).await, 401);
    }
    assert_eq!(guess(30, &headers).await, 429);
    assert_eq!(guess(31, &[]).await, 401);
    for n in 0..6 {
        let body = json!({ "handle": format!("new{n}"), "password": PASSWORD });
        let made = send(
            &server,
            Method::POST,
            "/accounts",
            ("", &headers),
            Some(&body),
        )
        .await;
        assert_eq!(made.status, if n < 5 { 201 } else { 429 }, "{}", made.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_reads_from_anywhere_and_writes_from_here() {
    let server =
        TestServer::start_with(&["http.cors_origins=[\"*\",\"https://shop.example\"]"]).await;
    let anna = Person::register(&server, "anna").await;
    let cookie = format!("theme=dark; lamplight_session={}", anna.token);
    let own = server.url("");
    let body = json!({ "bio": "Lamps." });
    let write = async |origin: Option<&str>| {
        let mut headers = vec![("cookie", cookie.as_str()), ("if-match", "*")];
        headers.extend(origin.map(|it| ("origin", it)));
        send(&server, Method::PATCH, "/me", ("", &headers), Some(&body)).await
    };
    let headers = [("cookie", cookie.as_str())];
    let read = send(&server, Method::GET, "/me", ("", &headers), None).await;
    assert_eq!(read.status, 200);
    for good in [own.as_str(), "https://shop.example"] {
        assert_eq!(write(Some(good)).await.status, 200, "{good}");
    }
    let bad = [
        "https://evil.example",
        "null",
        &format!("{own}.evil.example"),
        "",
    ];
    for origin in bad.map(Some).into_iter().chain([None]) {
        assert_eq!(
            refusal(&write(origin).await),
            is(403, "origin_refused"),
            "{origin:?}"
        );
    }
    // A cookie that is over is as good as none where everyone may look.
    let headers = [("cookie", "lamplight_session=st_over")];
    let public = send(&server, Method::GET, "/accounts/anna", ("", &headers), None).await;
    assert_eq!(public.status, 200);
    let public = send(
        &server,
        Method::GET,
        "/accounts/anna",
        ("st_over", &[]),
        None,
    )
    .await;
    assert_eq!(refusal(&public), is(401, "unauthenticated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_ends_the_other_sessions() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let other = log_in(&server, "anna", PASSWORD).await.json();
    let other = other["session"]["token"].as_str().unwrap();
    let path = "/me/password";
    let wish = |current: &str, password: &str| json!({ "current": current, "password": password });
    let wrong = anna
        .post(&server, path, &wish("not the heron", "a loud heron"))
        .await;
    assert_eq!(refusal(&wrong), is(401, "credentials_wrong"));
    let weak = anna
        .post(&server, path, &wish(PASSWORD, "1234567890"))
        .await;
    assert_eq!(refusal(&weak), is(422, "password_weak"));
    let done = anna
        .post(&server, path, &wish(PASSWORD, "a loud heron"))
        .await;
    assert_eq!(done.status, 204, "{}", done.text);
    assert_eq!(anna.get(&server, "/me").await.status, 200);
    assert_eq!(
        send(&server, Method::GET, "/me", (other, &[]), None)
            .await
            .status,
        401
    );
    assert_eq!(log_in(&server, "anna", PASSWORD).await.status, 401);
    assert_eq!(log_in(&server, "anna", "a loud heron").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_opens_an_account_once() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let recover = async |handle: &str, code: &str, password: &str| {
        let body = json!({ "handle": handle, "recovery_code": code, "password": password });
        send(
            &server,
            Method::POST,
            "/accounts/recover",
            ("", &[]),
            Some(&body),
        )
        .await
    };
    let code = anna.codes[3].as_str();
    let wrong = recover("anna", "AAAA-AAAA-AAAA-AAAA", "a loud heron").await;
    assert_eq!(refusal(&wrong), is(401, "credentials_wrong"));
    let weak = recover("anna", code, "1234567890").await;
    assert_eq!(refusal(&weak), is(422, "password_weak"));
    // As it may be typed.
    let typed = code.to_lowercase().replace('-', " ");
    let done = recover("Anna", &typed, "a loud heron").await;
    assert_eq!(done.status, 201, "{}", done.text);
    assert_eq!(anna.get(&server, "/me").await.status, 401);
    let token = done.json()["session"]["token"].as_str().unwrap().to_owned();
    assert_eq!(
        send(&server, Method::GET, "/me", (&token, &[]), None)
            .await
            .status,
        200
    );
    let again = recover("anna", code, "a third heron").await;
    assert_eq!(refusal(&again), is(401, "credentials_wrong"));
    let nobody = recover("nobody", code, "a third heron").await;
    assert_eq!(refusal(&nobody), is(401, "credentials_wrong"));
    assert_eq!(log_in(&server, "anna", "a loud heron").await.status, 201);
    assert_eq!(
        server
            .count("SELECT COUNT(*) FROM recovery_codes WHERE used_us IS NULL")
            .await,
        7
    );
    // Four were tried for this handle; the fifth is the last of the hour.
    assert_eq!(recover("anna", code, "a third heron").await.status, 401);
    assert_eq!(recover("anna", code, "a third heron").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_told_so_and_hidden() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let key = json!({ "name": "k", "scopes": ["posts:read"] });
    let key = anna.post(&server, "/me/api_keys", &key).await.json();
    let key = key["secret"].as_str().unwrap();
    execute(
        &server,
        "UPDATE accounts SET state = 'suspended' WHERE handle = 'anna'",
    )
    .await;
    let suspended = is(403, "account_suspended");
    for token in [anna.token.as_str(), key] {
        let answer = send(&server, Method::GET, "/me", (token, &[]), None).await;
        assert_eq!(refusal(&answer), suspended);
    }
    assert_eq!(refusal(&log_in(&server, "anna", PASSWORD).await), suspended);
    let wrong = log_in(&server, "anna", "not the heron").await;
    assert_eq!(refusal(&wrong), is(401, "credentials_wrong"));
    assert_eq!(server.get("/api/v1/accounts/anna").await.status, 404);
    assert_eq!(
        server.get_as_operator("/api/v1/accounts/anna").await.status,
        200
    );

    execute(
        &server,
        "UPDATE accounts SET state = 'closed' WHERE handle = 'anna'",
    )
    .await;
    assert_eq!(anna.get(&server, "/me").await.status, 401);
    let closed = log_in(&server, "anna", PASSWORD).await;
    assert_eq!(refusal(&closed), is(401, "credentials_wrong"));
}

/// CM12: what is secret stands in no table in clear.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_stored_in_clear() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let key = json!({ "name": "k", "scopes": ["posts:read"] });
    let headers = [("idempotency-key", "k")];
    let key = send(
        &server,
        Method::POST,
        "/me/api_keys",
        (&anna.token, &headers),
        Some(&key),
    )
    .await;
    let key = key.json()["secret"].as_str().unwrap().to_owned();
    let secrets = [
        PASSWORD,
        &anna.token,
        &key,
        &anna.codes[0],
        &anna.codes[0].replace('-', ""),
    ];
    let columns = [
        "SELECT phc FROM credentials",
        "SELECT code_hash FROM recovery_codes",
        "SELECT token_hash || agent FROM sessions",
        "SELECT secret_hash || prefix || last4 || name FROM api_keys",
        "SELECT body || fingerprint || principal FROM idempotency_keys",
        "SELECT diff || route FROM audit_log",
        "SELECT body FROM event_log",
    ];
    for sql in columns {
        let rows: Vec<(String,)> = sqlx::query_as(sql)
            .fetch_all(server.app().db.readers())
            .await
            .unwrap();
        let text = format!("{rows:?}");
        assert!(secrets.iter().all(|it| !text.contains(*it)), "{sql}");
    }
}
