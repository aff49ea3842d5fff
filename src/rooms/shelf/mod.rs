//! The shelf of a room: which products it sells, in which order, for which commission.
//!
//! Invariants
//! - Every write holds the lock of the room's row: numbers are unique, and so are places.
//! - An entry that is hidden or taken away is in no card from the same transaction on.
//!
//! Not here: prices ([`super::offers`]); what viewers see of an entry ([`super::timeline`]).

mod position;
mod routes;
mod store;
mod view;

use std::collections::HashMap;

pub(super) use self::routes::routes;
pub(crate) use self::store::{Attribution, attributions};
pub(super) use self::view::LEFT_TOLD_MAX;
use super::cards::{By, CardError, Desk, Written};
use super::goods::{self, Product, Variant};
use super::model::Room;
use super::offers::Pricing;
use super::store as rooms;
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::ids::{EntryId, MerchantId, ProductId, RoomId, VariantId};

/// Entries of a room.
const ENTRIES_MAX: usize = 500;
/// What creator, affiliate and platform may have together.
const SHARES_BPS_MAX: i64 = 9_000;

/// A product on a shelf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) room: RoomId,
    pub(super) product: ProductId,
    pub(super) merchant: MerchantId,
    /// Empty: all of the product.
    pub(super) variants: Vec<VariantId>,
    pub(super) number: Option<i64>,
    position: String,
    pub(super) is_hidden: bool,
    pub(super) note: Option<String>,
    pub(super) creator_bps: i64,
    pub(super) affiliate_bps: i64,
    pub(super) version: i64,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl Entry {
    /// The variants of its product that it sells.
    pub(super) fn sold<'a>(
        &self,
        variants: &'a HashMap<ProductId, Vec<Variant>>,
    ) -> impl Iterator<Item = &'a Variant> {
        let all = variants.get(&self.product).map_or(&[][..], Vec::as_slice);
        let chosen = self.variants.clone();
        all.iter()
            .filter(move |it| chosen.is_empty() || chosen.contains(&it.id))
    }
}

/// Where an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    First,
    Last,
    After(EntryId),
}

/// A wish for an entry.
#[derive(Clone, Debug)]
pub(super) struct NewEntry {
    pub(super) product: ProductId,
    pub(super) variants: Vec<VariantId>,
    pub(super) number: Option<i64>,
    pub(super) at: Where,
    pub(super) creator_bps: i64,
    pub(super) affiliate_bps: i64,
    pub(super) note: Option<String>,
}

/// What is to change of an entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) at: Option<Where>,
    pub(super) note: Option<Option<String>>,
    pub(super) is_hidden: Option<bool>,
    pub(super) number: Option<Option<i64>>,
}

/// Why a shelf was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShelfError {
    #[error("there is no such product")]
    NoProduct,
    #[error("the product has no such variant")]
    NoVariant,
    #[error("there is no such entry on this shelf to stand behind")]
    NoNeighbour,
    #[error("a shelf has at most {ENTRIES_MAX} entries")]
    Full,
    #[error("another entry has the number {0}")]
    NumberTaken(i64),
    #[error("the product cannot be bought, or has no price")]
    NotSellable,
    #[error("the shop agreed to less commission, or all shares together are too much")]
    NotAgreed,
    #[error("the room is over")]
    RoomEnded,
    #[error(transparent)]
    Card(#[from] CardError),
    #[error("writing the shelf")]
    Db(#[from] sqlx::Error),
}

/// Puts a product on the shelf of a room that this transaction has locked.
pub(super) async fn add(
    tx: &mut Tx,
    now: Timestamp,
    room: &Room,
    wish: NewEntry,
) -> Result<Entry, ShelfError> {
    if room.state.is_over() {
        return Err(ShelfError::RoomEnded);
    }
    let merchant = check_product(tx, now, &wish).await?;
    let commission = goods::commission(tx, merchant, room.creator).await?;
    let asked_bps = wish.creator_bps + wish.affiliate_bps;
    let is_agreed =
        asked_bps <= commission.cap_bps && asked_bps + commission.fee_bps <= SHARES_BPS_MAX;
    if !is_agreed && asked_bps > 0 {
        return Err(ShelfError::NotAgreed);
    }
    let shelf = store::list(tx, room.id).await?;
    if shelf.len() >= ENTRIES_MAX {
        return Err(ShelfError::Full);
    }
    check_number(&shelf, None, wish.number)?;
    let entry = Entry {
        id: EntryId::new(now),
        room: room.id,
        product: wish.product,
        merchant,
        variants: wish.variants,
        number: wish.number,
        position: place(tx, shelf, wish.at).await?,
        is_hidden: false,
        note: wish.note,
        creator_bps: wish.creator_bps,
        affiliate_bps: wish.affiliate_bps,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    store::insert(tx, &entry).await?;
    Ok(entry)
}

/// Changes an entry of a room that this transaction has locked; what is to be handed over.
pub(super) async fn change(
    tx: &mut Tx,
    app: &App,
    (room, mut entry): (Room, Entry),
    (change, by): (Change, By<'_>),
) -> Result<(Entry, Option<Written>), ShelfError> {
    let shelf = store::list(tx, room.id).await?;
    if let Some(number) = change.number {
        check_number(&shelf, Some(entry.id), number)?;
        entry.number = number;
    }
    if let Some(at) = change.at {
        let others = shelf.into_iter().filter(|it| it.id != entry.id);
        entry.position = place(tx, others.collect(), at).await?;
    }
    if let Some(note) = change.note {
        entry.note = note;
    }
    let is_taken_away = change.is_hidden == Some(true) && !entry.is_hidden;
    entry.is_hidden = change.is_hidden.unwrap_or(entry.is_hidden);
    entry.version += 1;
    entry.updated_at = app.clock.now();
    store::update(tx, &entry).await?;
    let written = if is_taken_away {
        withdraw(tx, app, (room, entry.id), by).await?
    } else {
        None
    };
    Ok((entry, written))
}

/// Takes an entry off the shelf of a room that this transaction has locked.
pub(super) async fn remove(
    tx: &mut Tx,
    app: &App,
    (room, entry): (Room, EntryId),
    by: By<'_>,
) -> Result<Option<Written>, ShelfError> {
    store::delete(tx, entry).await?;
    withdraw(tx, app, (room, entry), by).await
}

/// The entry, as this connection sees it.
pub(super) async fn find(
    connection: &mut sqlx::AnyConnection,
    id: EntryId,
) -> sqlx::Result<Option<Entry>> {
    store::find(connection, id).await
}

/// A room's entries, in their order.
pub(super) async fn list(
    connection: &mut sqlx::AnyConnection,
    room: RoomId,
) -> sqlx::Result<Vec<Entry>> {
    store::list(connection, room).await
}

/// What is left of an entry, by variant.
pub(crate) type Left = Vec<(VariantId, i64)>;

/// What is left of every entry that sells a variant, in the rooms on air.
///
/// # Errors
/// The database's error.
pub(crate) async fn left(
    app: &App,
    variant: VariantId,
) -> sqlx::Result<Vec<(RoomId, EntryId, Left)>> {
    let mut reader = app.db.readers().acquire().await?;
    let rooms = goods::rooms_selling(&mut reader, variant).await?;
    let mut all = Vec::new();
    for room in rooms {
        let entries = store::list(&mut reader, room).await?;
        let product = goods::product_of(&mut reader, variant).await?;
        let variants = goods::variants(&mut reader, product).await?;
        for entry in entries.iter().filter(|it| !it.is_hidden) {
            let sold: Vec<VariantId> = entry.sold(&variants).map(|it| it.id).collect();
            if sold.contains(&variant) {
                let left = goods::left(&mut reader, sold).await?;
                all.push((room, entry.id, left.into_iter().collect()));
            }
        }
    }
    Ok(all)
}

/// Locks the room of an entry, then reads the entry: in this order, since every write holds the
/// room first.
pub(super) async fn lock(tx: &mut Tx, id: EntryId) -> sqlx::Result<Option<(Room, Entry)>> {
    let Some(entry) = store::find(tx, id).await? else {
        return Ok(None);
    };
    let room = rooms::lock(tx, entry.room).await?;
    let entry = store::find(tx, id).await?;
    Ok(room.zip(entry))
}

async fn withdraw(
    tx: &mut Tx,
    app: &App,
    (room, entry): (Room, EntryId),
    by: By<'_>,
) -> Result<Option<Written>, ShelfError> {
    let mut desk = match Desk::of(tx, app, room).await {
        Ok(desk) => desk,
        // No card of it is shown before the show, and none changes after it.
        Err(CardError::NotLive(_) | CardError::Ended) => return Ok(None),
        Err(err) => return Err(err.into()),
    };
    desk.withdraw(tx, app, by, entry).await?;
    Ok(Some(desk.finish(tx).await?))
}

/// The shop of a product that can be sold.
async fn check_product(
    tx: &mut Tx,
    now: Timestamp,
    wish: &NewEntry,
) -> Result<MerchantId, ShelfError> {
    let mut found = goods::products(tx, [wish.product]).await?;
    let product: Product = found.remove(&wish.product).ok_or(ShelfError::NoProduct)?;
    let variants = goods::variants(tx, [wish.product]).await?;
    let known: Vec<VariantId> = variants.values().flatten().map(|it| it.id).collect();
    if wish.variants.iter().any(|it| !known.contains(it)) {
        return Err(ShelfError::NoVariant);
    }
    let sold = if wish.variants.is_empty() {
        &known
    } else {
        &wish.variants
    };
    let prices = Pricing::outside(tx, now, sold).await?;
    let is_priced = sold.iter().any(|it| !prices.candidates(*it).is_empty());
    if product.is_sold && is_priced {
        Ok(product.merchant)
    } else {
        Err(ShelfError::NotSellable)
    }
}

fn check_number(
    shelf: &[Entry],
    own: Option<EntryId>,
    number: Option<i64>,
) -> Result<(), ShelfError> {
    let others = shelf.iter().filter(|it| Some(it.id) != own);
    let mut taken = others.filter_map(|it| it.number);
    match number.filter(|number| taken.any(|it| it == *number)) {
        Some(number) => Err(ShelfError::NumberTaken(number)),
        None => Ok(()),
    }
}

/// The position of a place on the shelf; the shelf is spread anew when its positions get long.
async fn place(tx: &mut Tx, mut shelf: Vec<Entry>, at: Where) -> Result<String, ShelfError> {
    let index = match at {
        Where::First => 0,
        Where::Last => shelf.len(),
        Where::After(id) => {
            let neighbour = shelf.iter().position(|it| it.id == id);
            neighbour.ok_or(ShelfError::NoNeighbour)? + 1
        }
    };
    let found = position_at(&shelf, index);
    if !position::is_long(&found) {
        return Ok(found);
    }
    let positions = position::spread(shelf.len());
    for (entry, position) in shelf.iter_mut().zip(positions) {
        store::set_position(tx, entry.id, &position).await?;
        entry.position = position;
    }
    Ok(position_at(&shelf, index))
}

fn position_at(shelf: &[Entry], index: usize) -> String {
    let low = index.checked_sub(1).and_then(|at| shelf.get(at));
    let high = shelf.get(index);
    position::between(
        low.map(|it| it.position.as_str()),
        high.map(|it| it.position.as_str()),
    )
}
