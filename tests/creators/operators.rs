//! Who operates a creator, over HTTP; and what each of them may do.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::accounts::{Person, is, refusal, send};
use crate::support::{TestServer, redacted};

/// A page of this person; its id.
async fn page(server: &TestServer, owner: &Person, handle: &str) -> String {
    let body = json!({ "kind": "person", "handle": handle, "name": "A page" });
    let made = owner.post(server, "/creators", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["id"].as_str().unwrap().into()
}

/// Makes somebody an operator.
async fn join(server: &TestServer, owner: &Person, page: &str, (who, grant): (&Person, Value)) {
    let mut body = grant;
    body["account_id"] = json!(who.id);
    let asked = owner
        .post(server, &format!("/creators/{page}/operators"), &body)
        .await;
    assert_eq!(asked.status, 201, "{}", asked.text);
    let invite = asked.json()["invite_id"].as_str().unwrap().to_owned();
    let path = format!("/operator_invites/{invite}/accept");
    let joined = who.post(server, &path, &json!({})).await;
    assert_eq!(joined.status, 200, "{}", joined.text);
}

async fn people<const N: usize>(server: &TestServer, handles: [&str; N]) -> [Person; N] {
    let mut all = Vec::new();
    for handle in handles {
        all.push(Person::register(server, handle).await);
    }
    all.try_into()
        .map_err(|all: Vec<Person>| all.len())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invited_account_becomes_an_operator_and_leaves() {
    let server = TestServer::start().await;
    let [anna, bert, carl] = people(&server, ["anna", "bert", "carl"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let path = format!("/creators/{page}/operators");
    let body = json!({ "account_id": bert.id, "preset": "live_host" });
    let asked = anna.post(&server, &path, &body).await;
    assert_eq!(asked.status, 201, "{}", asked.text);
    insta::assert_json_snapshot!(redacted(asked.json()));
    let again = anna.post(&server, &path, &body).await;
    assert_eq!(refusal(&again), is(409, "invalid_state"));

    let invite = asked.json()["invite_id"].as_str().unwrap().to_owned();
    let accept = format!("/operator_invites/{invite}/accept");
    for other in [&anna, &carl] {
        let answer = other.post(&server, &accept, &json!({})).await;
        assert_eq!(refusal(&answer), is(404, "not_found"));
    }
    let joined = bert.post(&server, &accept, &json!({})).await;
    assert_eq!(
        (joined.status, joined.json()["state"].as_str()),
        (200, Some("active"))
    );
    let again = bert.post(&server, &accept, &json!({})).await;
    assert_eq!(refusal(&again), is(410, "gone"));
    let unknown = "/operator_invites/inv_01M86VRGYAE3AR7SWFHF7J4WXW/accept";
    let unknown = bert.post(&server, unknown, &json!({})).await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));

    let listed = anna.get(&server, &path).await;
    assert_eq!(listed.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        refusal(&bert.get(&server, &path).await),
        is(403, "forbidden")
    );
    assert_eq!(
        refusal(&carl.get(&server, &path).await),
        is(404, "not_found")
    );

    let own = format!("{path}/{}", bert.id);
    assert_eq!(
        refusal(&bert.delete(&server, &own).await),
        is(428, "precondition_required")
    );
    let tag = [("if-match", "\"1\"")];
    let stale = send(&server, Method::DELETE, &own, (&bert.token, &tag), None).await;
    assert_eq!(
        (refusal(&stale), stale.header("etag")),
        (is(412, "stale"), "\"2\"".into())
    );
    let tag = [("if-match", "\"2\"")];
    let left = send(&server, Method::DELETE, &own, (&bert.token, &tag), None).await;
    assert_eq!(left.status, 204, "{}", left.text);
    let again = send(&server, Method::DELETE, &own, (&bert.token, &tag), None).await;
    assert_eq!(refusal(&again), is(404, "not_found"));
    let logged = "SELECT COUNT(*) FROM audit_log WHERE route LIKE '%operator%'";
    assert_eq!(server.count(logged).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_declined_withdrawn_or_runs_out() {
    let server = TestServer::start().await;
    let [anna, bert] = people(&server, ["anna", "bert"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let path = format!("/creators/{page}/operators");
    let ask = async || {
        let body = json!({ "account_id": bert.id, "bits": ["go_live", "edit_page"] });
        let asked = anna.post(&server, &path, &body).await;
        assert_eq!(asked.status, 201, "{}", asked.text);
        assert_eq!(asked.json()["preset"], "custom");
        asked.json()["invite_id"].as_str().unwrap().to_owned()
    };
    let reply = async |invite: &str, word: &str| {
        let path = format!("/operator_invites/{invite}/{word}");
        bert.post(&server, &path, &json!({})).await
    };
    let invite = ask().await;
    let declined = reply(&invite, "decline").await;
    assert_eq!(
        (declined.status, declined.json()["state"].as_str()),
        (200, Some("left"))
    );
    assert_eq!(refusal(&reply(&invite, "accept").await), is(410, "gone"));

    let invite = ask().await;
    let headers = [("if-match", "*")];
    let who = format!("{path}/{}", bert.id);
    let withdrawn = send(&server, Method::DELETE, &who, (&anna.token, &headers), None).await;
    assert_eq!(withdrawn.status, 204);
    assert_eq!(refusal(&reply(&invite, "accept").await), is(410, "gone"));

    let invite = ask().await;
    server
        .app()
        .clock
        .advance(Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!(refusal(&reply(&invite, "accept").await), is(410, "gone"));
    let listed = anna.get(&server, &path).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let invite = ask().await;
    assert_eq!(reply(&invite, "accept").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_or_takes_what_they_lack() {
    let server = TestServer::start().await;
    let [anna, bert, carl] = people(&server, ["anna", "bert", "carl"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let path = format!("/creators/{page}/operators");
    join(&server, &anna, &page, (&bert, json!({ "preset": "admin" }))).await;
    for grant in [
        json!({ "preset": "owner" }),
        json!({ "bits": ["manage_payout"] }),
    ] {
        let mut body = grant;
        body["account_id"] = json!(carl.id);
        let asked = bert.post(&server, &path, &body).await;
        assert_eq!(refusal(&asked), is(403, "grant_exceeds_own"), "{body}");
    }
    let to = |who: &Person| format!("{path}/{}", who.id);
    let change = async |by: &Person, of: &Person, body: Value| {
        by.patch(&server, (&to(of), "*"), &body).await
    };
    let demoted = change(&bert, &anna, json!({ "preset": "editor" })).await;
    assert_eq!(refusal(&demoted), is(403, "grant_exceeds_own"));
    let raised = change(&bert, &bert, json!({ "preset": "owner" })).await;
    assert_eq!(refusal(&raised), is(403, "grant_exceeds_own"));
    let headers = [("if-match", "*")];
    let sent = send(
        &server,
        Method::DELETE,
        &to(&anna),
        (&bert.token, &headers),
        None,
    )
    .await;
    assert_eq!(refusal(&sent), is(403, "grant_exceeds_own"));

    let changed = change(&anna, &bert, json!({ "bits": ["go_live"] })).await;
    assert_eq!(
        (changed.status, changed.json()["bits"].clone()),
        (200, json!(["go_live"]))
    );
    assert_eq!(changed.header("etag"), "\"3\"");
    let lacks = bert.get(&server, &path).await;
    assert_eq!(
        (lacks.status, lacks.json()["needed"].clone()),
        (403, json!("manage_operators"))
    );
    let unknown = change(&anna, &carl, json!({ "preset": "editor" })).await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_keeps_an_owner_whatever_they_do_at_once() {
    let server = TestServer::start().await;
    let [anna, bert] = people(&server, ["anna", "bert"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let path = format!("/creators/{page}/operators");
    let headers = [("if-match", "*")];
    let leave = async |who: &Person| {
        let own = format!("{path}/{}", who.id);
        send(&server, Method::DELETE, &own, (&who.token, &headers), None).await
    };
    assert_eq!(refusal(&leave(&anna).await), is(409, "last_owner"));
    let own = format!("{path}/{}", anna.id);
    for body in [
        json!({ "preset": "admin" }),
        json!({ "bits": ["go_live"] }),
        json!({ "expires_at": "2027-01-01T00:00:00Z" }),
    ] {
        let answer = anna.patch(&server, (&own, "*"), &body).await;
        assert_eq!(refusal(&answer), is(409, "last_owner"), "{body}");
    }
    // An owner for a time is none to rely on.
    let grant = json!({ "preset": "owner", "expires_at": "2027-01-01T00:00:00Z" });
    join(&server, &anna, &page, (&bert, grant)).await;
    assert_eq!(refusal(&leave(&anna).await), is(409, "last_owner"));
    let of_bert = format!("{path}/{}", bert.id);
    let for_good = json!({ "expires_at": null });
    assert_eq!(
        anna.patch(&server, (&of_bert, "*"), &for_good).await.status,
        200
    );
    let (one, other) = tokio::join!(leave(&anna), leave(&bert));
    let mut answers = [one.status, other.status];
    answers.sort_unstable();
    assert_eq!(answers, [204, 409]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_grants_are_refused_by_name() {
    let server = TestServer::start().await;
    let [anna, bert] = people(&server, ["anna", "bert"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let path = format!("/creators/{page}/operators");
    let id = bert.id.as_str();
    let refused = is(422, "out_of_bounds");
    let cases = [
        json!({}),
        json!({ "preset": "king" }),
        json!({ "preset": "custom" }),
        json!({ "bits": [] }),
        json!({ "bits": ["fly"] }),
        json!({ "bits": ["go_live"], "preset": "editor" }),
        json!({ "preset": "editor", "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "preset": "editor", "account_id": "anna" }),
        json!({ "preset": "editor", "account_id": "acc_01M86VRGYAE3AR7SWFHF7J4WXW" }),
    ];
    let other = [
        (
            json!({ "preset": "editor", "expires_at": "x" }),
            is(400, "malformed"),
        ),
        (
            json!({ "preset": "editor", "x": 1 }),
            is(400, "unknown_field"),
        ),
    ];
    let cases = cases.map(|body| (body, refused.clone()));
    for (mut body, expected) in cases.into_iter().chain(other) {
        if body["account_id"].is_null() {
            body["account_id"] = json!(id);
        }
        let answer = anna.post(&server, &path, &body).await;
        assert_eq!(refusal(&answer), expected, "{body}");
    }
    let body = json!({ "account_id": id, "preset": "editor" });
    let unknown = "/creators/cre_01M86VRGYAE3AR7SWFHF7J4WXW/operators";
    assert_eq!(
        refusal(&anna.post(&server, unknown, &body).await),
        is(404, "not_found")
    );
    assert_eq!(
        refusal(&bert.post(&server, &path, &body).await),
        is(404, "not_found")
    );
    let anyone = send(&server, Method::POST, &path, ("", &[]), Some(&body)).await;
    assert_eq!(refusal(&anyone), is(401, "unauthenticated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_changed_by_those_who_may_and_as_it_was_read() {
    let server = TestServer::start().await;
    let [anna, bert, carl] = people(&server, ["anna", "bert", "carl"]).await;
    let page = page(&server, &anna, "annas-page").await;
    join(
        &server,
        &anna,
        &page,
        (&bert, json!({ "preset": "analyst" })),
    )
    .await;
    let path = format!("/creators/{page}");
    let body = json!({ "name": "Lamps", "bio": "All of them." });
    let without = send(
        &server,
        Method::PATCH,
        &path,
        (&anna.token, &[]),
        Some(&body),
    )
    .await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    let tag = anna.get(&server, &path).await.header("etag");
    let changed = anna.patch(&server, (&path, &tag), &body).await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    assert_eq!(changed.json()["name"], "Lamps");
    let stale = anna.patch(&server, (&path, &tag), &body).await;
    assert_eq!(
        (refusal(&stale), stale.header("etag")),
        (is(412, "stale"), "\"2\"".into())
    );
    let lacks = bert.patch(&server, (&path, "*"), &body).await;
    assert_eq!(
        (lacks.status, lacks.json()["needed"].clone()),
        (403, json!("edit_page"))
    );
    let foreign = carl.patch(&server, (&path, "*"), &body).await;
    assert_eq!(refusal(&foreign), is(404, "not_found"));
    let bad = anna
        .patch(&server, (&path, "*"), &json!({ "name": "" }))
        .await;
    assert_eq!(refusal(&bad), is(422, "out_of_bounds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_are_run_by_those_who_may_go_live() {
    let server = TestServer::start().await;
    let [anna, bert, carl] = people(&server, ["anna", "bert", "carl"]).await;
    let page = page(&server, &anna, "annas-page").await;
    let expires_at = server
        .app()
        .clock
        .now()
        .plus(Duration::from_secs(60))
        .to_string();
    let host = json!({ "preset": "live_host", "expires_at": expires_at });
    join(&server, &anna, &page, (&bert, host)).await;
    join(
        &server,
        &anna,
        &page,
        (&carl, json!({ "preset": "editor" })),
    )
    .await;
    let dora = Person::register(&server, "dora").await;
    let wish = json!({ "creator_id": page, "title": "A show" });
    let made = bert.post(&server, "/rooms", &wish).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let room = made.json()["id"].as_str().unwrap().to_owned();
    let lacks = carl.post(&server, "/rooms", &wish).await;
    assert_eq!(
        (lacks.status, lacks.json()["needed"].clone()),
        (403, json!("go_live"))
    );
    assert_eq!(
        refusal(&dora.post(&server, "/rooms", &wish).await),
        is(422, "out_of_bounds")
    );

    let keys = format!("/rooms/{room}/publish_keys");
    let cancel = format!("/rooms/{room}/cancel");
    for path in [&keys, &cancel] {
        assert_eq!(
            refusal(&carl.post(&server, path, &json!({})).await),
            is(403, "forbidden")
        );
        assert_eq!(
            refusal(&dora.post(&server, path, &json!({})).await),
            is(404, "not_found")
        );
    }
    let added = bert.post(&server, &keys, &json!({})).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let key = format!("{keys}/{}", added.json()["key_id"].as_str().unwrap());
    assert_eq!(
        refusal(&dora.delete(&server, &key).await),
        is(404, "not_found")
    );
    assert_eq!(
        refusal(&carl.delete(&server, &key).await),
        is(403, "forbidden")
    );
    assert_eq!(bert.delete(&server, &key).await.status, 204);
    // The platform runs every show.
    assert_eq!(
        server
            .post(&format!("/api/v1{keys}"), &json!({}))
            .await
            .status,
        201
    );

    server.app().clock.advance(Duration::from_secs(60));
    assert_eq!(
        refusal(&bert.post(&server, &cancel, &json!({})).await),
        is(404, "not_found")
    );
    assert_eq!(anna.post(&server, &cancel, &json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_narrows_what_its_account_may_do() {
    let server = TestServer::start().await;
    let anna = Person::register(&server, "anna").await;
    let (one, other) = (
        page(&server, &anna, "page-one").await,
        page(&server, &anna, "page-two").await,
    );
    let key = async |scopes: Value, creator: Option<&str>| {
        let body = json!({ "name": "k", "scopes": scopes, "creator_id": creator });
        let made = anna.post(&server, "/me/api_keys", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["secret"].as_str().unwrap().to_owned()
    };
    let make = async |secret: &str, page: &str| {
        let wish = json!({ "creator_id": page, "title": "A show" });
        send(&server, Method::POST, "/rooms", (secret, &[]), Some(&wish)).await
    };
    let all = key(json!(["rooms:manage"]), None).await;
    assert_eq!(make(&all, &one).await.status, 201);
    let narrow = key(json!(["rooms:manage"]), Some(&one)).await;
    assert_eq!(make(&narrow, &one).await.status, 201);
    assert_eq!(
        refusal(&make(&narrow, &other).await),
        is(422, "out_of_bounds")
    );
    let wrong = key(json!(["rooms:write", "posts:manage"]), None).await;
    assert_eq!(refusal(&make(&wrong, &one).await), is(403, "forbidden"));
    let body = json!({ "kind": "person", "handle": "page-three", "name": "A page" });
    let made = send(&server, Method::POST, "/creators", (&all, &[]), Some(&body)).await;
    assert_eq!(refusal(&made), is(403, "forbidden"));
    let headers = [("if-match", "*")];
    let path = format!("/creators/{one}");
    let name = json!({ "name": "New" });
    let edited = send(&server, Method::PATCH, &path, (&all, &headers), Some(&name)).await;
    assert_eq!(refusal(&edited), is(403, "forbidden"));
}
