//! What is sold and by whom: shops, products, variants, prices. Pure rules and bounds.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::http::{ApiError, Bounds, Code};
use crate::ids::{MerchantId, PriceId, ProductId, VariantId};
use crate::money::{Currency, Money};

/// Minor units of one price (commerce.md 14).
pub(super) const AMOUNT: RangeInclusive<i64> = 1..=10_000_000_000;
pub(super) const VARIANTS_MAX: usize = 100;
/// The same with those that are archived.
pub(super) const VARIANTS_KEPT_MAX: usize = 500;
pub(super) const MEDIA_MAX: usize = 20;
pub(super) const ATTRIBUTES_MAX: usize = 50;
pub(super) const OPTIONS_MAX: usize = 5;
/// Windows of one variant, past ones too.
pub(super) const PRICES_MAX: usize = 200;
const TITLE: RangeInclusive<usize> = 1..=120;
const DESCRIPTION: RangeInclusive<usize> = 0..=20_000;
const CATEGORY: RangeInclusive<usize> = 1..=80;
const NAME: RangeInclusive<usize> = 1..=80;
const VALUE: RangeInclusive<usize> = 0..=500;
const ALT: RangeInclusive<usize> = 0..=300;
const BARCODE: RangeInclusive<usize> = 1..=64;
const URL_BYTES_MAX: usize = 2_048;
const EXTERNAL_ID: RangeInclusive<usize> = 1..=64;
const WEIGHT_G: RangeInclusive<i64> = 0..=100_000_000;

/// An enum that is a word in the database and on the wire.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize,
            utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($variant),+
        }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            pub(super) fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == text)
            }
        }
    };
}

words! {
    /// Whether a shop is in order.
    MerchantStatus { Active = "active", Frozen = "frozen" }
}

words! {
    /// Who may see a product, and whether it is for sale.
    ProductStatus { Draft = "draft", Active = "active", Archived = "archived" }
}

words! {
    /// Whether a variant is for sale.
    VariantStatus { Active = "active", Archived = "archived" }
}

words! {
    /// What a price of the list is: the sale goes before the list while its window is open.
    PriceKind { Sale = "sale", List = "list" }
}

/// What a picture of a product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MediumKind {
    Image,
    Video,
}

/// A shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merchant {
    pub(crate) id: MerchantId,
    pub(crate) name: String,
    pub(crate) currency: Currency,
    pub(crate) status: MerchantStatus,
    /// Flat, per order.
    pub(crate) shipping_fee: Money,
    pub(crate) settle_after_days: i64,
    pub(crate) reserve_bps: i64,
    /// The platform's part.
    pub(crate) fee_bps: i64,
    /// For creators without a cap of their own.
    pub(crate) commission_cap_bps: i64,
    pub(crate) auto_confirm_days: i64,
    pub(crate) external_id: Option<String>,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// A picture or film of a product.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Medium {
    /// `https://…`, or a path of this server
    pub(crate) url: String,
    pub(crate) kind: MediumKind,
    /// What it shows, for those who cannot see it; at most 300 characters
    #[serde(default)]
    pub(crate) alt: String,
}

/// What a merchant says of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ProductFields {
    pub(crate) external_id: Option<String>,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) media: Vec<Medium>,
    pub(crate) category: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) requires_shipping: bool,
}

/// What is described.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) id: ProductId,
    pub(crate) merchant: MerchantId,
    pub(crate) fields: ProductFields,
    pub(crate) status: ProductStatus,
    /// Rises with each change of the product, its variants and their prices.
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// What a merchant says of a variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VariantFields {
    /// 1 to 64 of `[A-Za-z0-9_.:-]`, one of the merchant's variants
    pub(crate) external_id: Option<String>,
    /// At most 5, for example `{"size": "M"}`
    pub(crate) options: BTreeMap<String, String>,
    /// 1 to 64 characters
    pub(crate) barcode: Option<String>,
    pub(crate) weight_g: Option<i64>,
}

/// What is priced, counted and bought.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) id: VariantId,
    pub(crate) product: ProductId,
    pub(crate) merchant: MerchantId,
    pub(crate) fields: VariantFields,
    pub(crate) status: VariantStatus,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// What a merchant says of a price: from `starts_at` on, before `ends_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PriceFields {
    pub(crate) kind: PriceKind,
    pub(crate) price: Money,
    pub(crate) compare_at: Option<Money>,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Option<Timestamp>,
}

impl PriceFields {
    pub(super) fn is_in_force(&self, now: Timestamp) -> bool {
        self.starts_at <= now && self.ends_at.is_none_or(|end| now < end)
    }

    /// Whether it is a list price, in force at this moment or later.
    pub(super) fn is_list_price_from(&self, now: Timestamp) -> bool {
        self.kind == PriceKind::List && self.ends_at.is_none_or(|end| now < end)
    }

    /// Whether some moment lies in both windows.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let begins_in = |one: &Self, of: &Self| of.ends_at.is_none_or(|end| one.starts_at < end);
        self.kind == other.kind && begins_in(self, other) && begins_in(other, self)
    }
}

/// A row of a variant's price list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PriceRow {
    pub(crate) id: PriceId,
    pub(crate) variant: VariantId,
    pub(crate) fields: PriceFields,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl ProductFields {
    /// Without blanks around the title, and with the line breaks that all agree on.
    pub(super) fn tidied(mut self) -> Self {
        self.title = self.title.trim().into();
        self.description = self.description.replace("\r\n", "\n");
        self
    }

    /// Names what is out of bounds.
    pub(super) fn check(&self, bounds: &mut Bounds) {
        check_external_id(bounds, "/external_id", self.external_id.as_deref());
        bounds.text("/title", &self.title, TITLE);
        bounds.text("/description", &self.description, DESCRIPTION);
        if let Some(category) = &self.category {
            bounds.text("/category", category, CATEGORY);
        }
        if self.media.len() > MEDIA_MAX {
            bounds.add("/media", "length");
        }
        for (n, medium) in self.media.iter().take(MEDIA_MAX).enumerate() {
            if !is_address(&medium.url) {
                bounds.add(&format!("/media/{n}/url"), "format");
            }
            bounds.text(&format!("/media/{n}/alt"), &medium.alt, ALT);
        }
        check_map(bounds, "/attributes", &self.attributes, ATTRIBUTES_MAX);
    }
}

impl VariantFields {
    /// Names what is out of bounds; `at` is the pointer of the variant.
    pub(super) fn check(&self, bounds: &mut Bounds, at: &str) {
        let external_id = self.external_id.as_deref();
        check_external_id(bounds, &format!("{at}/external_id"), external_id);
        check_map(bounds, &format!("{at}/options"), &self.options, OPTIONS_MAX);
        if let Some(barcode) = &self.barcode {
            bounds.text(&format!("{at}/barcode"), barcode, BARCODE);
        }
        if let Some(weight) = self.weight_g {
            bounds.number(&format!("{at}/weight_g"), weight, WEIGHT_G);
        }
    }
}

impl PriceFields {
    /// Refuses amounts and windows that cannot be.
    pub(super) fn check(&self, shop: Currency) -> Result<(), ApiError> {
        check_amount("/price", self.price)?;
        let mut bounds = Bounds::default();
        check_currency(&mut bounds, "/price/currency", (self.price, shop));
        if let Some(compare_at) = self.compare_at {
            check_amount("/compare_at", compare_at)?;
            check_currency(&mut bounds, "/compare_at/currency", (compare_at, shop));
            if compare_at.amount_minor() < self.price.amount_minor() {
                bounds.add("/compare_at/amount", "below_price");
            }
        }
        if self.ends_at.is_some_and(|end| end <= self.starts_at) {
            bounds.add("/ends_at", "before_start");
        }
        bounds.check()
    }
}

fn check_amount(pointer: &str, money: Money) -> Result<(), ApiError> {
    check_amount_in(pointer, money, AMOUNT)
}

pub(super) fn check_amount_in(
    pointer: &str,
    money: Money,
    allowed: RangeInclusive<i64>,
) -> Result<(), ApiError> {
    if allowed.contains(&money.amount_minor()) {
        return Ok(());
    }
    let detail = format!(
        "it has {} to {} minor units",
        allowed.start(),
        allowed.end()
    );
    Err(ApiError::new(Code::AmountOutOfRange, detail).at(format!("{pointer}/amount"), "range"))
}

/// Everything of a shop is in the shop's currency.
pub(super) fn check_currency(bounds: &mut Bounds, pointer: &str, (money, shop): (Money, Currency)) {
    if money.currency() != shop {
        bounds.add(pointer, "currency");
    }
}

pub(super) fn check_name(bounds: &mut Bounds, pointer: &str, name: &str) {
    bounds.text(pointer, name, NAME);
}

/// 1 to 64 of `[A-Za-z0-9_.:-]`
pub(super) fn check_external_id(bounds: &mut Bounds, pointer: &str, id: Option<&str>) {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    let is_good = |id: &str| EXTERNAL_ID.contains(&id.len()) && id.bytes().all(is_plain);
    if id.is_some_and(|id| !is_good(id)) {
        bounds.add(pointer, "format");
    }
}

fn check_map(bounds: &mut Bounds, pointer: &str, map: &BTreeMap<String, String>, max: usize) {
    if map.len() > max {
        bounds.add(pointer, "length");
        return;
    }
    for (name, value) in map {
        // The two characters that a JSON pointer spells otherwise.
        let name_at = name.replace('~', "~0").replace('/', "~1");
        bounds.text(&format!("{pointer}/{name_at}"), name, NAME);
        bounds.text(&format!("{pointer}/{name_at}"), value, VALUE);
    }
}

/// Where a picture may be: never a scheme that a page would run.
fn is_address(url: &str) -> bool {
    let has_scheme = ["https://", "http://"].iter().any(|it| url.starts_with(it));
    let is_path = url.starts_with('/') && !url.starts_with("//");
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"\\<>".contains(&b);
    (has_scheme || is_path) && url.len() <= URL_BYTES_MAX && url.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(starts: i64, ends: Option<i64>) -> PriceFields {
        PriceFields {
            kind: PriceKind::List,
            price: Money::new(1, Currency::CNY),
            compare_at: None,
            starts_at: Timestamp::from_micros(starts),
            ends_at: ends.map(Timestamp::from_micros),
        }
    }

    #[test]
    fn windows_that_touch_do_not_overlap() {
        let cases = [
            (window(0, Some(10)), window(10, Some(20)), false),
            (window(0, Some(11)), window(10, Some(20)), true),
            (window(0, None), window(10, Some(20)), true),
            (window(20, None), window(10, Some(20)), false),
            (window(12, Some(13)), window(10, Some(20)), true),
            (window(0, None), window(5, None), true),
        ];
        for (one, other, expected) in cases {
            assert_eq!(one.overlaps(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?} {one:?}");
        }
        let mut sale = window(0, None);
        sale.kind = PriceKind::Sale;
        assert!(!sale.overlaps(&window(0, None)), "another kind");
    }

    #[test]
    fn a_picture_is_where_a_page_can_show_it_without_running_it() {
        for good in ["https://cdn.example/a.jpg", "/assets/a.webp"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "//evil.example/a",
            "data:x",
            "",
            "/a\"b",
            "/a b",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
