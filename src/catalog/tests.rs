//! Products and variants on a real database; who may do what in a shop.

use std::collections::BTreeMap;

use sqlx::{Executor, Row};

use super::access::StaffRole;
use super::merchants::merchant;
use super::model::{Product, ProductFields, ProductStatus, Variant, VariantFields, VariantStatus};
use super::store::{self, Filter};
use crate::accounts::Scope;
use crate::app::Fixture;
use crate::clock::Timestamp;
use crate::db::{NOON, Tx};
use crate::http::Seek;
use crate::ids::{MerchantId, ProductId, VariantId};

pub(super) async fn shop(tx: &mut Tx, name: &str) -> MerchantId {
    let id = MerchantId::derived(&[name]);
    let sql = "INSERT INTO merchants (id, name, currency, status, shipping_fee, \
               settle_after_days, reserve_bps, fee_bps, commission_cap_bps, auto_confirm_days, \
               version, created_us, updated_us) \
               VALUES ($1, $2, 'CNY', 'active', 0, 7, 0, 0, 0, 7, 1, 0, 0)";
    let query = sqlx::query(sql).bind(id.to_string()).bind(name);
    tx.execute(query).await.unwrap();
    id
}

fn fields(external_id: Option<&str>, title: &str) -> ProductFields {
    ProductFields {
        external_id: external_id.map(Into::into),
        title: title.into(),
        description: String::new(),
        media: Vec::new(),
        category: None,
        attributes: BTreeMap::new(),
        requires_shipping: true,
    }
}

pub(super) fn product(merchant: MerchantId, external_id: Option<&str>, title: &str) -> Product {
    Product {
        id: ProductId::new(NOON),
        merchant,
        fields: fields(external_id, title),
        status: ProductStatus::Draft,
        version: 1,
        created_at: NOON,
        updated_at: NOON,
    }
}

pub(super) fn variant(of: &Product, external_id: Option<&str>) -> Variant {
    Variant {
        id: VariantId::new(NOON),
        product: of.id,
        merchant: of.merchant,
        fields: VariantFields {
            external_id: external_id.map(Into::into),
            options: BTreeMap::from([("size".into(), "M".into())]),
            barcode: None,
            weight_g: Some(350),
        },
        status: VariantStatus::Active,
        version: 1,
        created_at: NOON,
        updated_at: NOON,
    }
}

#[tokio::test]
async fn a_product_and_its_variants_are_read_back_as_they_were_written() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let shop = shop(&mut tx, "a").await;
    let mut mug = product(shop, Some("mug"), "A mug");
    mug.fields.attributes.insert("glaze".into(), "blue".into());
    assert!(store::insert_product(&mut tx, &mug).await.unwrap());
    let mut small = variant(&mug, None);
    assert!(store::insert_variant(&mut tx, &small).await.unwrap());
    mug.fields.category = Some("kitchen".into());
    mug.version = 2;
    store::update_product(&mut tx, &mug).await.unwrap();
    small.fields.barcode = Some("690".into());
    store::update_variant(&mut tx, &small).await.unwrap();
    for found in [
        store::find_product(&mut tx, mug.id).await.unwrap(),
        store::lock_product(&mut tx, mug.id).await.unwrap(),
        store::lock_external(&mut tx, shop, "mug").await.unwrap(),
    ] {
        let found = found.unwrap();
        assert_eq!(
            (found.id, found.version, &found.fields),
            (mug.id, 2, &mug.fields)
        );
    }
    let found = store::variants_of(&mut tx, &[mug.id]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, &found[0].fields), (small.id, &small.fields));
}

#[tokio::test]
async fn a_variant_has_its_stock_from_the_start() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let mug = product(shop(&mut tx, "a").await, None, "A mug");
    store::insert_product(&mut tx, &mug).await.unwrap();
    let small = variant(&mug, None);
    store::insert_variant(&mut tx, &small).await.unwrap();
    let sql = "SELECT location_id, on_hand, movement_seq, version FROM stock WHERE variant_id = $1";
    let row = tx
        .fetch_one(sqlx::query(sql).bind(small.id.to_string()))
        .await
        .unwrap();
    let stock: (String, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(stock, ("default".into(), 0, 0, 1));
}

#[tokio::test]
async fn an_external_id_is_one_product_and_one_variant_of_a_merchant() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let (one, other) = (shop(&mut tx, "a").await, shop(&mut tx, "b").await);
    let mug = product(one, Some("x"), "A mug");
    assert!(store::insert_product(&mut tx, &mug).await.unwrap());
    let again = product(one, Some("x"), "Another");
    assert!(!store::insert_product(&mut tx, &again).await.unwrap());
    let elsewhere = product(other, Some("x"), "Another");
    assert!(store::insert_product(&mut tx, &elsewhere).await.unwrap());
    for title in ["No name", "No name either"] {
        let nameless = product(one, None, title);
        assert!(store::insert_product(&mut tx, &nameless).await.unwrap());
    }
    let small = variant(&mug, Some("x"));
    assert!(store::insert_variant(&mut tx, &small).await.unwrap());
    assert!(
        !store::insert_variant(&mut tx, &variant(&mug, Some("x")))
            .await
            .unwrap()
    );
    let found = store::find_external_variant(&mut tx, one, "x")
        .await
        .unwrap();
    assert_eq!(found.unwrap().id, small.id);
    assert!(
        store::find_external_variant(&mut tx, other, "x")
            .await
            .unwrap()
            .is_none()
    );
}

async fn titles(tx: &mut Tx, filter: &Filter, seek: Seek<ProductId>) -> Vec<String> {
    let found = store::list_products(tx, filter, (&seek, 2)).await.unwrap();
    found.into_iter().map(|it| it.fields.title).collect()
}

/// Four products of two shops, all but the last for sale; the shops.
async fn four(tx: &mut Tx) -> ([ProductId; 4], MerchantId) {
    let (one, other) = (shop(tx, "a").await, shop(tx, "b").await);
    let wanted = [
        (one, "Mug", Some("kitchen"), 1),
        (one, "茶杯", None, 0),
        (other, "Muffin", None, 0),
        (one, "Jug", None, 0),
    ];
    let mut ids = Vec::new();
    for (shop, title, category, later_us) in wanted {
        let mut product = product(shop, None, title);
        if title != "Jug" {
            product.status = ProductStatus::Active;
        }
        product.fields.category = category.map(Into::into);
        product.created_at = Timestamp::from_micros(NOON.as_micros() + later_us);
        store::insert_product(tx, &product).await.unwrap();
        ids.push(product.id);
    }
    (ids.try_into().unwrap(), one)
}

#[tokio::test]
async fn a_list_is_walked_both_ways() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let (ids, _) = four(&mut tx).await;
    let all = Filter::default();
    for (seek, expected) in [
        (Seek::First, &["Jug", "Muffin", "茶杯"][..]),
        (Seek::After(ids[2]), &["茶杯", "Mug"]),
        (Seek::Before(ids[1]), &["Muffin", "Jug"]),
    ] {
        assert_eq!(titles(&mut tx, &all, seek).await, expected);
    }
}

#[tokio::test]
async fn a_list_shows_what_every_filter_lets_through() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let (_, one) = four(&mut tx).await;
    let mut filters = vec![Filter::default(); 6];
    filters[0].merchant = Some(one);
    filters[1].statuses = vec![ProductStatus::Draft];
    filters[2].category = Some("kitchen".into());
    filters[3].title = Some("Mu".into());
    filters[4].title = Some("茶".into());
    filters[5].created_from = Some(Timestamp::from_micros(NOON.as_micros() + 1));
    filters[5].created_before = Some(Timestamp::from_micros(NOON.as_micros() + 2));
    let expected: [&[&str]; 6] = [
        &["Jug", "茶杯", "Mug"],
        &["Jug"],
        &["Mug"],
        &["Muffin", "Mug"],
        &["茶杯"],
        &["Mug"],
    ];
    for (filter, expected) in filters.iter().zip(expected) {
        assert_eq!(
            titles(&mut tx, filter, Seek::First).await,
            expected,
            "{filter:?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_merchant_is_none() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let id = shop(&mut tx, "a").await;
    assert_eq!(merchant(&mut tx, id).await.unwrap().unwrap().name, "a");
    let unknown = MerchantId::derived(&["b"]);
    assert!(merchant(&mut tx, unknown).await.unwrap().is_none());
}

/// The columns of merchants' roles of the table in commerce.md 4, read row by row.
#[test]
fn roles_hold_what_the_table_says() {
    use Scope as S;
    use StaffRole as R;
    let table: [(&[Scope], &[StaffRole]); 9] = [
        (
            &[S::ProductsWrite, S::PricesWrite, S::DealsWrite],
            &[R::Owner, R::Catalogue],
        ),
        (
            &[S::InventoryRead],
            &[R::Owner, R::Catalogue, R::Fulfilment, R::Support],
        ),
        (
            &[S::InventoryAdjust],
            &[R::Owner, R::Catalogue, R::Fulfilment],
        ),
        (
            &[
                S::RoomsManage,
                S::CardsControl,
                S::LedgerRead,
                S::DisputesResolve,
                S::MediaManage,
            ],
            &[],
        ),
        (&[S::CouponsWrite], &[R::Owner, R::Catalogue]),
        (
            &[S::OrdersRead],
            &[R::Owner, R::Fulfilment, R::Finance, R::Support],
        ),
        (&[S::OrdersFulfil], &[R::Owner, R::Fulfilment]),
        (
            &[S::PaymentsRead, S::PaymentsRefund],
            &[R::Owner, R::Finance, R::Support],
        ),
        (
            &[S::SettlementsRead, S::PayoutsWrite],
            &[R::Owner, R::Finance],
        ),
    ];
    for (scopes, roles) in table {
        for scope in scopes {
            for role in R::ALL {
                assert_eq!(
                    role.has(*scope),
                    roles.contains(&role),
                    "{role:?} {scope:?}"
                );
            }
        }
    }
    for scope in [S::WebhooksManage, S::KeysManage] {
        for role in R::ALL {
            assert_eq!(role.has(scope), role == R::Owner, "{role:?} {scope:?}");
        }
    }
}
