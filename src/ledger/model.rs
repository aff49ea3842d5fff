//! Accounts, transfers and the hash that chains them; pure.
#![deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::Date;

use crate::app::hex;
use crate::clock::Timestamp;
use crate::ids::{LedgerAccountId, TransferId};
use crate::money::{Currency, Money};

/// The hash before the first transfer.
pub(super) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const SEGMENT_CHARS_MAX: usize = 64;
const SUBJECT_CHARS_MAX: usize = 128;
const CODE_CHARS_MAX: usize = 32;
const CHAIN_CHARS_MAX: usize = 96;

/// The text is no path of the chart of accounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no path of the chart of accounts (payments.md 12)")]
pub(crate) struct BadPath(String);

/// Where money is: a path of the chart of accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Path {
    text: String,
    kind: Kind,
}

/// What bounds an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Debits, pending ones counted, are at most the posted credits.
    pub(crate) debits_within_credits: bool,
    /// Credits, pending ones counted, are at most the posted debits.
    pub(crate) credits_within_debits: bool,
    /// Takes no further transfer.
    pub(crate) is_closed: bool,
}

macro_rules! kinds {
    ($($name:ident $word:literal $bound:ident [$($segment:literal)*];)+) => {
        /// A row of the chart of accounts (payments.md 12).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind { $($name),+ }

        impl Kind {
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            const fn bound(self) -> Bound {
                match self { $(Self::$name => Bound::$bound),+ }
            }

            /// `*` stands for a name.
            const CHART: &[(Self, &[&str])] = &[$((Self::$name, &[$($segment),*])),+];
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    None,
    DebitsWithinCredits,
    CreditsWithinDebits,
}

kinds! {
    ProviderClearing "provider_clearing" None ["provider" "*" "clearing"];
    ProviderFees "provider_fees" None ["provider" "*" "fees"];
    ProviderSuspense "provider_suspense" DebitsWithinCredits ["provider" "*" "suspense"];
    Bank "bank" None ["bank" "*"];
    Wallet "wallet" DebitsWithinCredits ["wallet" "*"];
    OrderEscrow "order_escrow" DebitsWithinCredits ["order" "*" "escrow"];
    MerchantPending "merchant_pending" DebitsWithinCredits ["merchant" "*" "pending"];
    MerchantAvailable "merchant_available" DebitsWithinCredits ["merchant" "*" "available"];
    MerchantReserve "merchant_reserve" DebitsWithinCredits ["merchant" "*" "reserve"];
    MerchantReceivable "merchant_receivable" CreditsWithinDebits ["merchant" "*" "receivable"];
    CreatorPending "creator_pending" DebitsWithinCredits ["creator" "*" "pending"];
    CreatorAvailable "creator_available" DebitsWithinCredits ["creator" "*" "available"];
    CreatorReceivable "creator_receivable" CreditsWithinDebits ["creator" "*" "receivable"];
    AffiliatePending "affiliate_pending" DebitsWithinCredits ["affiliate" "*" "pending"];
    AffiliateAvailable "affiliate_available" DebitsWithinCredits ["affiliate" "*" "available"];
    AffiliateReceivable "affiliate_receivable" CreditsWithinDebits ["affiliate" "*" "receivable"];
    PlatformRevenue "platform_revenue" None ["platform" "revenue"];
    PlatformAdsRevenue "platform_ads_revenue" None ["platform" "ads_revenue"];
    PlatformSubsidy "platform_subsidy" None ["platform" "subsidy"];
    PlatformWriteOff "platform_write_off" None ["platform" "write_off"];
    CouponBudget "coupon_budget" DebitsWithinCredits ["coupon" "*" "budget"];
    CouponUsed "coupon_used" DebitsWithinCredits ["coupon" "*" "used"];
    DisputeHold "dispute_hold" DebitsWithinCredits ["dispute" "*" "hold"];
    AdvertiserCash "advertiser_cash" DebitsWithinCredits ["advertiser" "*" "cash"];
    Pool "pool" DebitsWithinCredits ["pool" "*"];
    Grant "grant" DebitsWithinCredits ["grant" "*"];
}

impl Path {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn flags(&self) -> Flags {
        let bound = self.kind.bound();
        Flags {
            debits_within_credits: bound == Bound::DebitsWithinCredits,
            credits_within_debits: bound == Bound::CreditsWithinDebits,
            is_closed: false,
        }
    }

    /// The id of its account in a currency: the same wherever it is opened.
    pub(crate) fn id(&self, currency: Currency) -> LedgerAccountId {
        LedgerAccountId::derived(&["ledger_account", &self.text, currency.as_str()])
    }
}

impl FromStr for Path {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        let segments: Vec<&str> = text.split(':').collect();
        let is_name = |s: &str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            (1..=SEGMENT_CHARS_MAX).contains(&s.len()) && s.bytes().all(is_plain)
        };
        let fits = |wanted: &[&str]| {
            wanted.len() == segments.len()
                && wanted.iter().zip(&segments).all(|(wanted, segment)| {
                    if *wanted == "*" {
                        is_name(segment)
                    } else {
                        wanted == segment
                    }
                })
        };
        let found = Kind::CHART.iter().find(|(_, wanted)| fits(wanted));
        let (kind, _) = found.ok_or_else(|| BadPath(text.into()))?;
        Ok(Self {
            text: text.into(),
            kind: *kind,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a transfer does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "holds come with coupons and refunds")
)]
pub(crate) enum Move {
    /// Moves money.
    Posted {
        debit: Path,
        credit: Path,
        amount: Money,
    },
    /// Holds money, until it is posted, voided or expired.
    Pending {
        debit: Path,
        credit: Path,
        amount: Money,
        timeout: Option<Timestamp>,
    },
    /// Moves held money: all, or less, and the rest is freed.
    Post {
        pending: TransferId,
        amount: Option<Money>,
    },
    /// Frees held money.
    Void { pending: TransferId },
    /// Frees held money whose time is over.
    Expire { pending: TransferId },
}

/// A transfer that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) what: Move,
    /// Why, for people and reports: `capture`, `refund`, `split` and so on.
    pub(crate) code: &'static str,
    /// The id of the object it is about.
    pub(crate) subject: String,
}

/// Transfers that are posted together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Makes it happen once.
    pub(crate) id: String,
    pub(crate) transfers: Vec<Transfer>,
}

impl Chain {
    /// The id of the transfer at a place of it.
    pub(crate) fn transfer(&self, pos: usize) -> TransferId {
        TransferId::derived(&["transfer", &self.id, &pos.to_string()])
    }

    /// Panics on texts that would make the lines of the hash ambiguous: they are ours.
    pub(super) fn check(&self) {
        let is_plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        assert!(is_plain(&self.id, CHAIN_CHARS_MAX), "chain {:?}", self.id);
        for Transfer { code, subject, .. } in &self.transfers {
            assert!(is_plain(code, CODE_CHARS_MAX), "code {code:?}");
            assert!(is_plain(subject, SUBJECT_CHARS_MAX), "subject {subject:?}");
        }
    }
}

/// What became of one transfer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Created,
    /// It was there before, the same.
    Exists,
    ExistsWithDifferentFields,
    /// Another one of the chain failed.
    LinkedEventFailed,
    AccountNotFound,
    AccountClosed,
    AccountsMustDiffer,
    CurrencyMismatch,
    AmountMustBePositive,
    ExceedsCredits,
    ExceedsDebits,
    PendingNotFound,
    PendingAlreadyPosted,
    PendingAlreadyVoided,
    PendingExpired,
    ExceedsPendingAmount,
    Overflow,
}

impl Outcome {
    /// The stable word (payments.md 11 L4).
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Exists => "exists",
            Self::ExistsWithDifferentFields => "exists_with_different_fields",
            Self::LinkedEventFailed => "linked_event_failed",
            Self::AccountNotFound => "account_not_found",
            Self::AccountClosed => "account_closed",
            Self::AccountsMustDiffer => "accounts_must_differ",
            Self::CurrencyMismatch => "currency_mismatch",
            Self::AmountMustBePositive => "amount_must_be_positive",
            Self::ExceedsCredits => "exceeds_credits",
            Self::ExceedsDebits => "exceeds_debits",
            Self::PendingNotFound => "pending_not_found",
            Self::PendingAlreadyPosted => "pending_already_posted",
            Self::PendingAlreadyVoided => "pending_already_voided",
            Self::PendingExpired => "pending_expired",
            Self::ExceedsPendingAmount => "exceeds_pending_amount",
            Self::Overflow => "overflow",
        }
    }

    /// Whether the transfer is there now.
    pub(crate) const fn is_there(self) -> bool {
        matches!(self, Self::Created | Self::Exists)
    }
}

/// The kind of a transfer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    Posted,
    Pending,
    Post,
    Void,
    Expire,
}

impl RowKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Posted => "posted",
            Self::Pending => "pending",
            Self::Post => "post",
            Self::Void => "void",
            Self::Expire => "expire",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Posted,
            Self::Pending,
            Self::Post,
            Self::Void,
            Self::Expire,
        ];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A transfer as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) id: TransferId,
    pub(super) chain: String,
    pub(super) pos: i64,
    pub(super) kind: RowKind,
    pub(super) debit: LedgerAccountId,
    pub(super) credit: LedgerAccountId,
    pub(super) amount: Money,
    pub(super) code: String,
    pub(super) subject: String,
    pub(super) pending: Option<TransferId>,
    pub(super) timeout: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) prev_hash: String,
    pub(super) hash: String,
}

impl Row {
    /// The hash that it has to have (payments.md 11 L7).
    pub(super) fn hashed(&self) -> String {
        let pending = self.pending.map(|id| id.to_string()).unwrap_or_default();
        let currency = self.amount.currency();
        let lines = [
            "v1",
            &self.prev_hash,
            &self.seq.to_string(),
            &self.id.to_string(),
            self.kind.as_str(),
            &self.debit.to_string(),
            &self.credit.to_string(),
            &self.amount.amount_minor().to_string(),
            currency.as_str(),
            &pending,
            &self.code,
            &self.subject,
            &self.created_at.as_micros().to_string(),
        ];
        hex(&Sha256::digest(lines.join("\n").as_bytes()))
    }

    /// Whether it is what a transfer at its place would be again.
    pub(super) fn is_of(&self, transfer: &Transfer) -> bool {
        let (kind, pending, timeout) = match &transfer.what {
            Move::Posted { .. } => (RowKind::Posted, None, None),
            Move::Pending { timeout, .. } => (RowKind::Pending, None, *timeout),
            Move::Post { pending, .. } => (RowKind::Post, Some(*pending), None),
            Move::Void { pending } => (RowKind::Void, Some(*pending), None),
            Move::Expire { pending } => (RowKind::Expire, Some(*pending), None),
        };
        let has_amount = |amount: Option<Money>| amount.is_none_or(|amount| amount == self.amount);
        let has_sides = match &transfer.what {
            Move::Posted {
                debit,
                credit,
                amount,
            }
            | Move::Pending {
                debit,
                credit,
                amount,
                ..
            } => {
                let currency = amount.currency();
                has_amount(Some(*amount))
                    && (debit.id(currency), credit.id(currency)) == (self.debit, self.credit)
            }
            Move::Post { amount, .. } => has_amount(*amount),
            Move::Void { .. } | Move::Expire { .. } => true,
        };
        (kind, pending, timeout) == (self.kind, self.pending, self.timeout)
            && has_sides
            && self.code == transfer.code
            && self.subject == transfer.subject
    }
}

/// The four sums of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balances {
    pub(super) debits_posted: i64,
    pub(super) credits_posted: i64,
    pub(super) debits_pending: i64,
    pub(super) credits_pending: i64,
}

/// One side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Debit,
    Credit,
}

impl Balances {
    pub(super) fn add_posted(&mut self, side: Side, amount: i64) -> Option<()> {
        let sum = match side {
            Side::Debit => &mut self.debits_posted,
            Side::Credit => &mut self.credits_posted,
        };
        *sum = sum.checked_add(amount)?;
        Some(())
    }

    /// Holds money, or frees it when the amount is negative.
    pub(super) fn add_pending(&mut self, side: Side, amount: i64) -> Option<()> {
        let sum = match side {
            Side::Debit => &mut self.debits_pending,
            Side::Credit => &mut self.credits_pending,
        };
        *sum = sum.checked_add(amount).filter(|sum| *sum >= 0)?;
        Some(())
    }

    /// Why it may not be so.
    pub(super) fn fault(&self, flags: Flags) -> Option<Outcome> {
        let sum = |posted: i64, pending: i64| i128::from(posted).saturating_add(pending.into());
        let debits = sum(self.debits_posted, self.debits_pending);
        let credits = sum(self.credits_posted, self.credits_pending);
        if flags.debits_within_credits && debits > i128::from(self.credits_posted) {
            return Some(Outcome::ExceedsCredits);
        }
        if flags.credits_within_debits && credits > i128::from(self.debits_posted) {
            return Some(Outcome::ExceedsDebits);
        }
        None
    }
}

/// Sums since the first day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// By currency: all debits, which equal all credits, in minor units.
    pub(super) moved: BTreeMap<String, i64>,
    /// By currency and kind of account: credits less debits.
    pub(super) balances: BTreeMap<String, BTreeMap<String, i64>>,
}

/// The close of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) date: Date,
    /// The newest transfer of the day, or of a day before.
    pub(super) last_seq: i64,
    pub(super) hash: String,
    pub(super) totals: Totals,
    /// Hex.
    pub(super) signature: Option<String>,
}

impl Day {
    /// What is signed.
    pub(super) fn text(&self) -> String {
        let totals = serde_json::to_string(&self.totals).expect("numbers and texts are JSON");
        let lines = [
            "v1",
            &self.date.to_string(),
            &self.last_seq.to_string(),
            &self.hash,
            &totals,
        ];
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_chart_is_read_and_no_other() {
        for (path, kind) in [
            ("provider:alipay:clearing", Kind::ProviderClearing),
            ("wallet:acc_01KDY1234567890ABCDEFGHJKM", Kind::Wallet),
            (
                "order:ord_01KDY1234567890ABCDEFGHJKM:escrow",
                Kind::OrderEscrow,
            ),
            ("merchant:mch_1:receivable", Kind::MerchantReceivable),
            ("platform:ads_revenue", Kind::PlatformAdsRevenue),
            ("bank:main", Kind::Bank),
        ] {
            let read: Path = path.parse().unwrap();
            assert_eq!((read.kind(), read.as_str()), (kind, path));
        }
        for bad in [
            "",
            "wallet",
            "wallet:",
            "wallet:a b",
            "wallet:a:b",
            "platform:cash",
            "x:y",
        ] {
            assert_eq!(bad.parse::<Path>(), Err(BadPath(bad.into())));
        }
        let long = format!("wallet:{}", "a".repeat(65));
        long.parse::<Path>().unwrap_err();
    }

    /// Vector V9 of payments.md 19.
    #[test]
    fn the_hash_is_that_of_the_specification() {
        let us = |text: &str| Timestamp::from_micros(text.parse().unwrap());
        let row = Row {
            seq: 1,
            id: "trf_01KDY1234567890ABCDEFGHJKM".parse().unwrap(),
            chain: "c".into(),
            pos: 0,
            kind: RowKind::Posted,
            debit: "led_01KDY1234567890ABCDEFGHJKA".parse().unwrap(),
            credit: "led_01KDY1234567890ABCDEFGHJKB".parse().unwrap(),
            amount: Money::new(1_999, Currency::CNY),
            code: "capture".into(),
            subject: "ord_01KDY1234567890ABCDEFGHJKM".into(),
            pending: None,
            timeout: None,
            created_at: us("1767294245000000"),
            prev_hash: NO_HASH.into(),
            hash: String::new(),
        };
        let expected = "ffbb99d071954b500e53c7972815e5aa024148a26e2cf0f8924d398ce6426bf0";
        assert_eq!(row.hashed(), expected);
    }
}
