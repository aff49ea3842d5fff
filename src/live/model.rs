//! Messages of a stream, as Server-Sent Events. Pure.

use bytes::Bytes;
use serde::Serialize;

use crate::ids::{EntryId, VariantId};

/// Up to this many units are told exactly.
const LEFT_TOLD_MAX: i64 = 100;

/// What is left of a shelf entry: a hint, of which the newest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StockHint {
    pub(super) entry: EntryId,
    /// Every variant that the entry sells.
    pub(super) left: Vec<(VariantId, i64)>,
}

/// What one listener hears, rendered for all.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Card {
        seq: i64,
        event: Bytes,
    },
    Rehearsed {
        seq: i64,
        event: Bytes,
    },
    /// The show starts.
    Started,
    /// Cards were missed: they are to be read.
    Missed,
    Hint(Bytes),
}

#[derive(Serialize)]
struct StockView {
    entry: EntryId,
    /// Null for more than 100
    left: Option<i64>,
    variants: Vec<VariantView>,
}

#[derive(Serialize)]
struct VariantView {
    variant: VariantId,
    left: Option<i64>,
}

impl StockHint {
    pub(super) fn event(&self) -> Bytes {
        let told = |left: i64| Some(left).filter(|left| *left <= LEFT_TOLD_MAX);
        let variants = self.left.iter().map(|&(variant, left)| VariantView {
            variant,
            left: told(left),
        });
        let view = StockView {
            entry: self.entry,
            left: told(self.left.iter().map(|(_, left)| left).sum()),
            variants: variants.collect(),
        };
        let data = serde_json::to_string(&view).expect("ids and numbers have a JSON form");
        Bytes::from(format!("event: stock\ndata: {data}\n\n"))
    }
}

/// A card, by its envelope.
pub(super) fn card(seq: i64, envelope: &str) -> Bytes {
    Bytes::from(format!("id: {seq}\nevent: card\ndata: {envelope}\n\n"))
}

/// The state up to a number.
pub(super) fn snapshot(seq: i64, view: &str) -> Bytes {
    Bytes::from(format!("id: {seq}\nevent: snapshot\ndata: {view}\n\n"))
}

/// What keeps a connection from looking dead.
pub(super) const fn alive() -> Bytes {
    Bytes::from_static(b":\n\n")
}
