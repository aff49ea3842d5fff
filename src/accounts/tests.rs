//! Handles as a table; operators and keys on a real database.

use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::Request;
use sqlx::{Executor, Row};

use super::keys::{NewKey, Owner};
use super::model::{Profile, code_meant, new_code};
use super::password::Password;
use super::sessions::Origin;
use super::*;
use crate::app::Fixture;
use crate::db::NOON;
use crate::http::{ApiError, Client, Code};
use crate::ids::{AccountId, CreatorId, MerchantId};

#[test]
fn handles_are_folded_and_odd_ones_refused() {
    let good = [
        ("Anna", "anna"),
        ("a.b-c_d", "a.b-c_d"),
        ("x10", "x10"),
        ("Añb", "añb"),
        ("Straße", "strasse"),
        ("ＡＮＮＡ", "anna"),
        ("ΣΟΦΟΣ", "σοφοσ"),
        ("иван", "иван"),
        ("李小龙", "李小龙"),
        ("Tokyo東京タワー", "tokyo東京タワー"),
        ("한국abc", "한국abc"),
    ];
    for (text, folded) in good {
        assert_eq!(Handle::parse(text).unwrap().as_str(), folded);
    }
    let long = "x".repeat(31);
    for bad in [
        "ab",
        "-ab",
        "ab.",
        "a__b",
        "a.-b",
        "123",
        "١٢٣",
        "a b",
        "",
        "pаypal", // with a Cyrillic a
        "ивanов",
        "a\u{200d}bc",
        "a\u{202e}bc",
        "ab😀",
        "a'bc",
        "\u{301}abc",
        &long,
    ] {
        assert_eq!(Handle::parse(bad), Err(HandleError::Invalid), "{bad}");
    }
    let reserved = Err(HandleError::Reserved);
    assert_eq!(Handle::parse("Admin"), reserved);
    // Wholly Cyrillic letters.
    assert_eq!(Handle::parse("арі"), reserved, "looks like api");
}

#[test]
fn handles_that_look_alike_share_a_skeleton() {
    let skeleton = |text| Handle::parse(text).unwrap().skeleton();
    assert_eq!(skeleton("paul1"), skeleton("paull"));
    assert_eq!(skeleton("mary"), skeleton("rnary"));
    assert_eq!(skeleton("асе"), skeleton("ace"));
    assert_ne!(skeleton("anna"), skeleton("anne"));
}

/// Those stored before other scripts were taken stay as they are.
#[test]
fn the_skeleton_of_latin_letters_changes_three_of_them() {
    for c in "abcdefghijklmnopqrstuvwxyz0123456789_-.".chars() {
        let expected = match c {
            '0' => "aOa".to_owned(),
            '1' => "ala".to_owned(),
            'm' => "arna".to_owned(),
            c => format!("a{c}a"),
        };
        let handle = Handle::parse(&format!("a{c}a")).unwrap();
        assert_eq!(handle.skeleton(), expected);
    }
}

#[tokio::test]
async fn an_operator_gets_one_key_that_is_stored_as_a_hash() {
    let it = Fixture::new().await;
    let made = create_operator(&it.app, "Boss").await.unwrap();
    assert!(made.api_key.starts_with("sk_") && made.api_key.len() == 46);
    assert!(key_is_valid(it.db(), &made.api_key, NOON).await.unwrap());
    assert!(!key_is_valid(it.db(), "sk_other", NOON).await.unwrap());

    let sql = "SELECT secret_hash, prefix, last4, scopes FROM api_keys";
    let row = sqlx::query(sql).fetch_one(it.db().readers()).await.unwrap();
    let (hash, last4): (String, String) = (row.get(0), row.get(2));
    assert!(made.api_key.ends_with(&last4) && !hash.contains(&last4));
    let scopes: Vec<String> = serde_json::from_str(&row.get::<String, _>(3)).unwrap();
    assert_eq!(scopes, Scope::ALL.map(Scope::as_str));
}

#[tokio::test]
async fn a_handle_that_looks_taken_is_taken() {
    let it = Fixture::new().await;
    create_operator(&it.app, "paul1").await.unwrap();
    let again = create_operator(&it.app, "PAULL").await;
    assert!(matches!(again, Err(CreateOperatorError::Taken(_))));
    let query = sqlx::query("SELECT COUNT(*) FROM accounts");
    let accounts: i64 = query.fetch_one(it.db().readers()).await.unwrap().get(0);
    assert_eq!(accounts, 1);
}

/// Who asks with this secret, from this address.
async fn asks(it: &Fixture, secret: &str, ip: &str) -> Result<Principal, ApiError> {
    let request = Request::get("/x").header("authorization", format!("bearer {secret}"));
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(Client(ip.parse().unwrap()));
    <Principal as FromRequestParts<_>>::from_request_parts(&mut parts, &it.app).await
}

/// The secret of a fresh key.
async fn key(it: &Fixture, owner: Owner, scopes: &[&str], ip_allow: &[&str]) -> String {
    let texts = |all: &[&str]| all.iter().map(|&text| text.into()).collect();
    let key = NewKey {
        owner,
        name: "a key".into(),
        scopes: texts(scopes),
        ip_allow: texts(ip_allow),
        creator: None,
        expires_at: Some(NOON.plus(Duration::from_secs(60))),
    };
    let mut tx = it.db().begin().await.unwrap();
    let made = add_key(&mut tx, NOON, &key).await.unwrap();
    tx.commit().await.unwrap();
    made.secret
}

async fn person(it: &Fixture, handle: &str) -> AccountId {
    let profile = Profile::of(Handle::parse(handle).unwrap());
    let mut tx = it.db().begin().await.unwrap();
    let made = service::register(&mut tx, NOON, &profile, "$argon2id$none").await;
    tx.commit().await.unwrap();
    made.unwrap().id
}

async fn run(it: &Fixture, sql: &'static str) {
    let mut tx = it.db().begin().await.unwrap();
    tx.execute(sql).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_merchants_key_speaks_for_its_shop_and_for_no_account() {
    let it = Fixture::new().await;
    let merchant = MerchantId::new(NOON);
    let scopes = [
        "products:write",
        "ledger:read",
        "rooms:manage",
        "unheard:of",
    ];
    let secret = key(&it, Owner::Merchant(merchant), &scopes, &[]).await;
    assert!(secret.starts_with("sk_"));
    let who = asks(&it, &secret, "203.0.113.7").await.unwrap();
    let (of, held) = who.merchant_key().unwrap();
    // The ledger and rooms are beyond one shop, whatever the key lists.
    assert_eq!((of, held), (merchant, &[Scope::ProductsWrite][..]));
    assert!(who.holds(Scope::ProductsWrite) && who.require(Scope::LedgerRead).is_err());
    assert_eq!(who.account().unwrap_err().code(), Code::Forbidden);
    assert!(who.name().starts_with("key_") && who.actor() == merchant.to_string());
    assert!(!key_is_valid(it.db(), &secret, NOON).await.unwrap());
    it.app.clock.advance(Duration::from_secs(60));
    let over = asks(&it, &secret, "203.0.113.7").await.unwrap_err();
    assert_eq!(over.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_key_for_some_addresses_is_used_from_these() {
    let it = Fixture::new().await;
    let merchant = Owner::Merchant(MerchantId::new(NOON));
    let allowed = ["203.0.113.7", "198.51.100.0/24", "2001:db8::/32"];
    let secret = key(&it, merchant, &["products:write"], &allowed).await;
    for good in ["203.0.113.7", "::ffff:198.51.100.9", "2001:db8:1::1"] {
        assert!(asks(&it, &secret, good).await.is_ok(), "{good}");
    }
    for bad in ["203.0.113.8", "198.51.101.1", "2001:db9::1", "127.0.0.1"] {
        let refused = asks(&it, &secret, bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::Forbidden, "{bad}");
    }
    for (block, expected) in [
        ("0.0.0.0/0", true),
        ("::/0", false),
        ("203.0.113.7/33", true),
        ("203.0.113.7/x", false),
        ("rubbish", false),
    ] {
        let ip = "203.0.113.7".parse().unwrap();
        assert_eq!(extract::is_within(ip, block), expected, "{block}");
    }
}

#[tokio::test]
async fn a_key_of_the_platform_has_what_it_lists_and_its_owners_roles_allow() {
    let it = Fixture::new().await;
    let made = create_operator(&it.app, "boss").await.unwrap();
    let whole = asks(&it, &made.api_key, "::1").await.unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| whole.holds(scope)));
    assert!(whole.is_platform(Role::Operator) && !whole.is_platform(Role::Auditor));
    assert_eq!(whole.account().unwrap(), made.account);
    let narrow = key(&it, Owner::Platform(made.account), &["ledger:read"], &[]).await;
    let narrow = asks(&it, &narrow, "::1").await.unwrap();
    assert!(narrow.holds(Scope::LedgerRead) && !narrow.holds(Scope::MediaManage));

    run(&it, "UPDATE platform_roles SET role = 'auditor'").await;
    let less = asks(&it, &made.api_key, "::1").await.unwrap();
    assert!(less.holds(Scope::LedgerRead) && !less.holds(Scope::MediaManage));
    run(&it, "DELETE FROM platform_roles").await;
    let none = asks(&it, &made.api_key, "::1").await.unwrap();
    assert!(!Scope::ALL.into_iter().any(|scope| none.holds(scope)));
}

#[tokio::test]
async fn a_key_of_an_operators_account_has_no_power_over_the_platform() {
    let it = Fixture::new().await;
    let made = create_operator(&it.app, "boss").await.unwrap();
    let secret = key(&it, Owner::Account(made.account), &["rooms:manage"], &[]).await;
    assert!(secret.starts_with("ak_"));
    let who = asks(&it, &secret, "::1").await.unwrap();
    assert!(who.require(Scope::RoomsManage).is_err() && !who.is_platform(Role::Operator));
    assert!(who.reach(Resource::Rooms, Verb::Manage).is_ok());
    assert!(who.reach(Resource::Rooms, Verb::Write).is_err());
    assert!(who.whole().is_err() && who.session().is_err());
    assert!(!who.is_kept_from(CreatorId::new(NOON)));
}

#[tokio::test]
async fn a_session_is_seen_at_most_every_ten_minutes() {
    let it = Fixture::new().await;
    let anna = person(&it, "anna").await;
    let origin = Origin::new("203.0.113.7".parse().unwrap(), "A browser\n");
    let mut tx = it.db().begin().await.unwrap();
    let opened = service::open_session(&mut tx, NOON, anna, &origin).await;
    tx.commit().await.unwrap();
    let token = opened.unwrap().token;
    let seen = async || {
        let now = it.app.clock.now();
        let listed = sessions::list(it.db(), anna, now).await.unwrap();
        assert_eq!((listed[0].agent.as_str(), listed.len()), ("A browser", 1));
        assert_eq!(listed[0].ip_prefix, "203.0.113.0/24");
        listed[0].last_seen_at.since(NOON).as_secs()
    };
    for (step, expected) in [(0, 0), (600, 0), (1, 601), (600, 601), (1, 1_202)] {
        it.app.clock.advance(Duration::from_secs(step));
        let who = asks(&it, &token, "203.0.113.7").await.unwrap();
        assert_eq!(who.session().unwrap().0, anna);
        assert_eq!(seen().await, expected);
    }
}

#[tokio::test]
async fn a_route_for_all_knows_members_and_lets_others_pass() {
    let it = Fixture::new().await;
    let made = create_operator(&it.app, "boss").await.unwrap();
    let look = async |header: Option<String>| {
        let mut request = Request::post("/x");
        if let Some(text) = header {
            request = request.header("authorization", text);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(Client("::1".parse().unwrap()));
        let found =
            <Principal as OptionalFromRequestParts<_>>::from_request_parts(&mut parts, &it.app);
        found.await.map(|who| who.map(|it| it.account().unwrap()))
    };
    assert_eq!(look(None).await.unwrap(), None);
    let key = format!("Bearer {}", made.api_key);
    assert_eq!(look(Some(key)).await.unwrap(), Some(made.account));
    // A token for media is none of ours; a key that is wrong is refused.
    assert_eq!(look(Some("Bearer pt1.x.y".into())).await.unwrap(), None);
    let wrong = look(Some("Bearer sk_wrong".into())).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_older_hash_is_made_anew_at_the_next_login() {
    let it = Fixture::new().await;
    let anna = person(&it, "anna").await;
    // "a quiet heron" at a quarter of the memory.
    let old = old_hash("a quiet heron");
    let mut tx = it.db().begin().await.unwrap();
    store::set_password(&mut tx, anna, &old, NOON)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let handle = Handle::parse("anna").unwrap();
    let phc = async || {
        let login = store::find_login(it.db(), &handle).await.unwrap();
        login.unwrap().phc.unwrap()
    };
    let wrong = Password::new("not the heron");
    assert!(
        service::recognise(&it.app, Some(&handle), &wrong)
            .await
            .is_err()
    );
    assert_eq!(phc().await, old);
    let right = Password::new("a quiet heron");
    let known = service::recognise(&it.app, Some(&handle), &right).await;
    assert_eq!(known.unwrap(), anna);
    assert!(phc().await != old && !password::is_outdated(&phc().await));
    assert_eq!(right.is(&it.app, Some(phc().await)).await, Ok(true));
}

fn old_hash(password: &str) -> String {
    use argon2::password_hash::PasswordHasher;
    let params = argon2::Params::new(4_864, 2, 1, None).unwrap();
    let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
    let hasher = argon2::Argon2::new(algorithm, version, params);
    hasher
        .hash_password(password.as_bytes())
        .unwrap()
        .to_string()
}

#[test]
fn a_recovery_code_is_understood_however_it_is_typed() {
    let code = new_code();
    assert_eq!(code.len(), 19);
    assert_ne!(code, new_code());
    let meant = code_meant(&code);
    for typed in [
        code.to_lowercase(),
        code.replace('-', ""),
        format!(" {} ", code),
    ] {
        assert_eq!(code_meant(&typed), meant);
    }
    assert_eq!(code_meant("oO-il L1"), "001111");
    assert_ne!(code_meant(&format!("{code}X")), meant);
}

#[tokio::test]
async fn a_code_works_once_and_of_its_own_account() {
    let it = Fixture::new().await;
    let (anna, bert) = (person(&it, "anna").await, person(&it, "bert").await);
    let mut tx = it.db().begin().await.unwrap();
    store::insert_code(&mut tx, anna, "hash").await.unwrap();
    assert!(!store::use_code(&mut tx, bert, "hash", NOON).await.unwrap());
    assert!(store::use_code(&mut tx, anna, "hash", NOON).await.unwrap());
    assert!(!store::use_code(&mut tx, anna, "hash", NOON).await.unwrap());
}
