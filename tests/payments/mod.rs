//! Money put into wallets, and the ledger over HTTP and on the command line.

use serde_json::{Value, json};

use crate::support::TestServer;

async fn account(server: &TestServer) -> String {
    let found = sqlx::query_as::<_, (String,)>("SELECT id FROM accounts ORDER BY id LIMIT 1")
        .fetch_one(server.app().db.readers())
        .await;
    found.unwrap().0
}

fn top_up(amount: i64) -> Value {
    json!({ "amount": { "amount": amount, "currency": "CNY" }, "reason": "a test" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_topped_up_once_per_key_and_the_ledger_shows_it() {
    let server = TestServer::start().await;
    let owner = account(&server).await;
    let path = format!("/api/v1/wallets/{owner}/top_ups");
    let first = server.post_once("k1", &path, &top_up(5_000)).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = server.post_once("k1", &path, &top_up(5_000)).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(server.post_once("k2", &path, &top_up(70)).await.status, 201);

    let list = server
        .get_as_operator(&format!(
            "/api/v1/ledger/accounts?path_prefix=wallet:{owner}"
        ))
        .await;
    let list = list.json();
    let wallet = &list["data"][0];
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&wallet["credits_posted"], &wallet["available"]),
        (&json!(5_070), &json!(5_070))
    );
    let all = server
        .get_as_operator("/api/v1/ledger/accounts?limit=1")
        .await
        .json();
    assert_eq!(all["page"]["has_more"], true);
    let next = all["page"]["next"].as_str().unwrap();
    let rest = format!("/api/v1/ledger/accounts?limit=1&after={next}");
    let rest = server.get_as_operator(&rest).await.json();
    assert_ne!(rest["data"][0]["id"], all["data"][0]["id"]);

    let id = wallet["id"].as_str().unwrap();
    let one = server
        .get_as_operator(&format!("/api/v1/ledger/accounts/{id}"))
        .await;
    assert_eq!(&one.json(), wallet);
    let page = format!("/api/v1/ledger/accounts/{id}/transfers?limit=1");
    let newest = server.get_as_operator(&page).await.json();
    assert_eq!(
        newest["data"][0]["amount"],
        json!({ "amount": 70, "currency": "CNY" })
    );
    let next = newest["page"]["next"].as_str().unwrap();
    let older = server
        .get_as_operator(&format!("{page}&after={next}"))
        .await
        .json();
    let transfer = &older["data"][0];
    assert_eq!(transfer["id"], first.json()["transfer_id"]);
    assert_eq!(
        (&transfer["code"], &transfer["subject"]),
        (&json!("top_up"), &json!(owner))
    );
    let prev = older["page"]["prev"].as_str().unwrap();
    let back = server
        .get_as_operator(&format!("{page}&before={prev}"))
        .await
        .json();
    assert_eq!(back["data"], newest["data"]);
    let id = transfer["id"].as_str().unwrap();
    let one = server
        .get_as_operator(&format!("/api/v1/ledger/transfers/{id}"))
        .await;
    assert_eq!(&one.json(), transfer);

    let verified = server.command(&["ledger", "verify"]).output().unwrap();
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(verified.status.success(), "{said}");
    assert_eq!(said, "2 transfers over 2 accounts: clean\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_top_up_is_refused_and_changes_nothing() {
    let server = TestServer::start().await;
    let owner = account(&server).await;
    let path = format!("/api/v1/wallets/{owner}/top_ups");
    let nobody = "/api/v1/wallets/acc_01M86VRGYAE3AR7SWFHPWY1Y64/top_ups";
    let long = json!({ "amount": { "amount": 1, "currency": "CNY" }, "reason": "x".repeat(201) });
    let float = json!({ "amount": { "amount": 1.5, "currency": "CNY" }, "reason": "x" });
    let more = json!({ "amount": { "amount": 1, "currency": "CNY" }, "reason": "x", "to": 1 });
    for (n, (path, body, status, code)) in [
        (path.as_str(), top_up(0), 422, "amount_out_of_range"),
        (&path, top_up(-1), 422, "amount_out_of_range"),
        (&path, top_up(10_000_000_001), 422, "amount_out_of_range"),
        (&path, long, 422, "out_of_bounds"),
        (&path, float, 400, "malformed"),
        (&path, more, 400, "unknown_field"),
        (nobody, top_up(1), 404, "not_found"),
        ("/api/v1/wallets/x/top_ups", top_up(1), 404, "not_found"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = server.post_once(&format!("bad{n}"), path, &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{body}"
        );
    }
    let keyless = server.post(&path, &top_up(1)).await;
    assert_eq!(keyless.code(), "idempotency_key_missing");
    let stranger = server.client.post(server.url(&path)).json(&top_up(1));
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    for path in ["accounts", "transfers/trf_01M86VRGYAE3AR7SWFHPWY1Y64"] {
        assert_eq!(
            server.get(&format!("/api/v1/ledger/{path}")).await.status,
            401
        );
    }
    for path in [
        "accounts/led_01M86VRGYAE3AR7SWFHPWY1Y64",
        "accounts/led_01M86VRGYAE3AR7SWFHPWY1Y64/transfers",
        "transfers/trf_01M86VRGYAE3AR7SWFHPWY1Y64",
    ] {
        let answer = server
            .get_as_operator(&format!("/api/v1/ledger/{path}"))
            .await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let accounts = server
        .get_as_operator("/api/v1/ledger/accounts")
        .await
        .json();
    assert_eq!(accounts["data"], json!([]));
}

/// A row that was changed in the file is named, and the exit code says so.
#[tokio::test(flavor = "multi_thread")]
async fn verify_fails_when_the_file_was_changed() {
    let server = TestServer::start().await;
    let path = format!("/api/v1/wallets/{}/top_ups", account(&server).await);
    assert_eq!(
        server.post_once("k1", &path, &top_up(5_000)).await.status,
        201
    );
    let mut tx = server.app().db.begin().await.unwrap();
    let sql = "UPDATE ledger_transfers SET amount = 6000 WHERE seq = 1";
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let verified = server.command(&["ledger", "verify"]).output().unwrap();
    let said = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(said.contains("transfer 1 (trf_"), "{said}");
    assert!(said.ends_with("NOT clean\n"), "{said}");
}
