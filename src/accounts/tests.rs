//! Handles as a table; operators and keys on a real database.

use sqlx::Row;

use super::*;
use crate::app::Fixture;
use crate::db::NOON;

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
