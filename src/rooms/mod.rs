//! Rooms: one live show each, from its announcement to its end.
//!
//! `scheduled -> rehearsal -> live <-> interrupted -> ended`, or `cancelled` before it was live.
//! The publisher's coming and going moves it ([`jobs`]); people make it ([`mod@routes`]).
//!
//! Invariants
//! - Every move is one transaction with its event; the state test is in the UPDATE.
//! - Room time never runs back: a new media instance continues where wall time is.
//! - A room whose `interrupt_grace_s` is 0 never ends by itself.
//!
//! Not here: shelf, cards, deals; who may publish ([`crate::broadcasts`]).

mod cards;
mod clock;
mod envelope;
mod goods;
mod jobs;
mod model;
mod offers;
mod replay;
mod routes;
mod service;
mod shelf;
mod store;
#[cfg(test)]
mod tests;
mod timeline;

pub(crate) use self::cards::{
    CardError, CardNews, Listener, envelopes_after, listen, now_text, place_card,
};
pub(crate) use self::jobs::{follow_stock, run};
pub(crate) use self::model::NewRoom;
pub(crate) use self::offers::{
    Charged, KeyFileError, OfferError, PriceWish, Pricing, open_offer_keys, pricing,
    rotate_offer_keys,
};
#[cfg(test)]
pub(crate) use self::offers::{Quote, QuoteKind};
pub(crate) use self::routes::routes;
pub(crate) use self::service::{CreateError, create};
pub(crate) use self::shelf::{Attribution, attributions, left};
