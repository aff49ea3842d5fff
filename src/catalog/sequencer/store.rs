//! Stock, movements, reservations and the lease in SQL; a batch costs a statement a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use super::book::{Book, Reservation, State};
use super::command::{Command, Hold, Movement, Released, Stock, Units, What};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Tx, parsed, select_in};
use crate::ids::{AccountId, ReservationId, VariantId};

const COUNTERS: &str = "on_hand, reserved, committed, ring_fenced, safety, incoming, \
                        per_buyer_limit, movement_seq, stock.version";

/// Takes the desk: of one shard there is one owner. The epoch, or none while another holds it.
pub(super) async fn take_lease(
    tx: &mut Tx,
    owner: &str,
    (now, until): (Timestamp, Timestamp),
) -> sqlx::Result<Option<i64>> {
    let sql = "INSERT INTO sequencer_leases (shard, owner, epoch, expires_us) \
               VALUES ('all', $1, 1, $2) ON CONFLICT (shard) DO UPDATE \
               SET owner = excluded.owner, epoch = sequencer_leases.epoch + 1, \
               expires_us = excluded.expires_us WHERE sequencer_leases.expires_us <= $3 \
               RETURNING epoch";
    let query = sqlx::query(sql)
        .bind(owner.to_owned())
        .bind(until.as_micros())
        .bind(now.as_micros());
    let row = tx.fetch_optional(query).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Keeps the desk; false when another took it. The row stays locked until the commit.
pub(super) async fn keep_lease(
    tx: &mut Tx,
    (owner, epoch): (&str, i64),
    until: Timestamp,
) -> sqlx::Result<bool> {
    let sql = "UPDATE sequencer_leases SET expires_us = $3 \
               WHERE shard = 'all' AND owner = $1 AND epoch = $2";
    let query = sqlx::query(sql)
        .bind(owner.to_owned())
        .bind(epoch)
        .bind(until.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// Loads what the commands touch and is not in the book yet.
pub(super) async fn load<'a>(
    tx: &mut Tx,
    book: &mut Book,
    commands: impl Iterator<Item = &'a Command> + Clone + Send,
) -> sqlx::Result<()> {
    let ended: BTreeSet<ReservationId> = commands.clone().flat_map(ending).collect();
    if !ended.is_empty() {
        load_reservations(tx, book, &ended).await?;
    }
    let mut variants: BTreeSet<VariantId> = commands.clone().flat_map(variants_of).collect();
    let held = book.reservations.values().flat_map(|it| &it.lines);
    variants.extend(held.map(|line| line.variant));
    variants.retain(|variant| !book.stock.contains_key(variant));
    if !variants.is_empty() {
        load_stock(tx, book, &variants).await?;
    }
    load_units(tx, book, commands).await
}

fn ending(command: &Command) -> Vec<ReservationId> {
    match &command.what {
        What::Confirm { reservations } | What::Release { reservations, .. } => reservations.clone(),
        _ => Vec::new(),
    }
}

fn holds_of(command: &Command) -> (Option<AccountId>, &[Hold]) {
    match &command.what {
        What::Reserve { buyer, holds, .. } => (Some(*buyer), holds),
        What::Revive { buyer, hold } => (Some(*buyer), std::slice::from_ref(hold)),
        _ => (None, &[]),
    }
}

fn variants_of(command: &Command) -> Vec<VariantId> {
    match &command.what {
        What::Reserve { .. } | What::Revive { .. } => {
            let lines = holds_of(command).1.iter().flat_map(|hold| &hold.lines);
            lines.map(|line| line.variant).collect()
        }
        What::Confirm { .. } | What::Release { .. } => Vec::new(),
        What::Adjust { variant, .. }
        | What::Set { variant, .. }
        | What::Settings { variant, .. } => vec![*variant],
        What::Ship { lines, .. } => lines.iter().map(|line| line.variant).collect(),
        What::Restock { lines, .. } => lines.iter().map(|(line, _)| line.variant).collect(),
    }
}

async fn load_reservations(
    tx: &mut Tx,
    book: &mut Book,
    ids: &BTreeSet<ReservationId>,
) -> sqlx::Result<()> {
    let select = "SELECT id, order_id, buyer_id, state, expires_us FROM reservations WHERE id IN";
    let order = format!(" ORDER BY id{}", tx.for_update());
    for row in select_in(tx, select, &order, ids).await? {
        let state = match row.try_get::<String, _>(3)?.as_str() {
            "active" => State::Active,
            "confirmed" => State::Confirmed,
            _ => State::Released,
        };
        let reservation = Reservation {
            order: parsed(&row, 1)?,
            buyer: parsed(&row, 2)?,
            state,
            reason: None,
            expires_at: Timestamp::from_micros(row.try_get(4)?),
            lines: Vec::new(),
        };
        book.reservations.insert(parsed(&row, 0)?, reservation);
    }
    let select = "SELECT reservation_id, variant_id, quantity FROM reservation_lines \
                  WHERE reservation_id IN";
    for row in select_in(tx, select, " ORDER BY reservation_id, variant_id", ids).await? {
        if let Some(reservation) = book.reservations.get_mut(&parsed(&row, 0)?) {
            reservation.lines.push(Units {
                variant: parsed(&row, 1)?,
                quantity: row.try_get(2)?,
            });
        }
    }
    Ok(())
}

async fn load_stock(
    tx: &mut Tx,
    book: &mut Book,
    variants: &BTreeSet<VariantId>,
) -> sqlx::Result<()> {
    let moved = sums_of_movements(tx, variants).await?;
    let held = sums_of_reservations(tx, variants).await?;
    let select = format!(
        "SELECT variant_id, v.merchant_id, {COUNTERS} FROM stock \
         JOIN variants v ON v.id = stock.variant_id WHERE variant_id IN"
    );
    for row in select_in(tx, &select, "", variants).await? {
        let variant: VariantId = parsed(&row, 0)?;
        book.merchants.insert(variant, parsed(&row, 1)?);
        let stock = read_stock(&row, 2)?;
        let counted = [
            stock.on_hand,
            stock.reserved,
            stock.committed,
            stock.ring_fenced,
        ];
        let sums = moved.get(&variant).copied().unwrap_or_default();
        let reserved = held.get(&variant).copied().unwrap_or_default();
        if sums == counted && reserved == stock.reserved {
            book.frozen.remove(&variant);
        } else {
            tracing::error!(variant.id = %variant, "stock disagrees with its movements: frozen");
            book.frozen.insert(variant);
        }
        book.stock.insert(variant, stock);
    }
    Ok(())
}

async fn sums_of_movements(
    tx: &mut Tx,
    variants: &BTreeSet<VariantId>,
) -> sqlx::Result<HashMap<VariantId, [i64; 4]>> {
    let select = "SELECT variant_id, CAST(SUM(d_on_hand) AS BIGINT), \
                  CAST(SUM(d_reserved) AS BIGINT), CAST(SUM(d_committed) AS BIGINT), \
                  CAST(SUM(d_ring_fenced) AS BIGINT) FROM stock_movements WHERE variant_id IN";
    let mut sums = HashMap::new();
    for row in select_in(tx, select, " GROUP BY variant_id", variants).await? {
        let sum = [
            row.try_get(1)?,
            row.try_get(2)?,
            row.try_get(3)?,
            row.try_get(4)?,
        ];
        sums.insert(parsed(&row, 0)?, sum);
    }
    Ok(sums)
}

/// What active reservations hold of each variant.
async fn sums_of_reservations(
    tx: &mut Tx,
    variants: &BTreeSet<VariantId>,
) -> sqlx::Result<HashMap<VariantId, i64>> {
    let select = "SELECT l.variant_id, CAST(SUM(l.quantity) AS BIGINT) FROM reservation_lines l \
                  JOIN reservations r ON r.id = l.reservation_id AND r.state = 'active' \
                  WHERE l.variant_id IN";
    let mut sums = HashMap::new();
    for row in select_in(tx, select, " GROUP BY l.variant_id", variants).await? {
        sums.insert(parsed(&row, 0)?, row.try_get(1)?);
    }
    Ok(sums)
}

/// How many units the buyers have of what is limited.
async fn load_units<'a>(
    tx: &mut Tx,
    book: &mut Book,
    commands: impl Iterator<Item = &'a Command>,
) -> sqlx::Result<()> {
    let mut buyers = BTreeSet::new();
    let mut variants = BTreeSet::new();
    for command in commands {
        let (Some(buyer), holds) = holds_of(command) else {
            continue;
        };
        for line in holds.iter().flat_map(|hold| &hold.lines) {
            let stock = book.stock.get(&line.variant);
            if stock.is_some_and(|stock| stock.per_buyer_limit.is_some()) {
                buyers.insert(buyer);
                variants.insert(line.variant);
            }
        }
    }
    for variant in variants {
        let select = "SELECT buyer_id, units, scope_id FROM buyer_units WHERE buyer_id IN";
        let end = format!(" AND scope_id = '{variant}'");
        for row in select_in(tx, select, &end, &buyers).await? {
            book.units
                .insert((parsed(&row, 0)?, variant), row.try_get(1)?);
        }
    }
    Ok(())
}

/// Writes what the batch changed; false when an owner of a later epoch was here.
pub(super) async fn save(
    tx: &mut Tx,
    book: &Book,
    (epoch, now): (i64, Timestamp),
) -> sqlx::Result<bool> {
    if !save_stock(tx, book, (epoch, now)).await? {
        return Ok(false);
    }
    insert_movements(tx, &book.changes.movements).await?;
    insert_reservations(tx, book, now).await?;
    end_reservations(tx, book, now).await?;
    save_units(tx, &book.changes.units).await?;
    Ok(true)
}

async fn save_stock(
    tx: &mut Tx,
    book: &Book,
    (epoch, now): (i64, Timestamp),
) -> sqlx::Result<bool> {
    let touched = book.changes.touched.keys();
    let touched = touched.filter_map(|variant| Some((*variant, *book.stock.get(variant)?)));
    let touched: Vec<(VariantId, Stock)> = touched.collect();
    let bulk = Bulk {
        head: "WITH changed (id, on_hand, reserved, committed, ring_fenced, safety, incoming, \
               per_buyer_limit, movement_seq, version, epoch, now_us) AS (",
        width: 12,
        tail: ") UPDATE stock SET on_hand = changed.on_hand, reserved = changed.reserved, \
               committed = changed.committed, ring_fenced = changed.ring_fenced, \
               safety = changed.safety, incoming = changed.incoming, \
               per_buyer_limit = NULLIF(changed.per_buyer_limit, 0), \
               movement_seq = changed.movement_seq, version = changed.version, \
               epoch = changed.epoch, updated_us = changed.now_us FROM changed \
               WHERE stock.variant_id = changed.id AND stock.epoch <= changed.epoch",
    };
    let bind = |query: Bound, (variant, stock): &(VariantId, Stock)| {
        query
            .bind(variant.to_string())
            .bind(stock.on_hand)
            .bind(stock.reserved)
            .bind(stock.committed)
            .bind(stock.ring_fenced)
            .bind(stock.safety)
            .bind(stock.incoming)
            .bind(stock.per_buyer_limit.unwrap_or(0))
            .bind(stock.movement_seq)
            .bind(stock.version)
            .bind(epoch)
            .bind(now.as_micros())
    };
    let changed = bulk.execute(tx, &touched, bind).await?;
    Ok(usize::try_from(changed).is_ok_and(|changed| changed == touched.len()))
}

async fn insert_movements(tx: &mut Tx, movements: &[Movement]) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO stock_movements (id, variant_id, seq, kind, d_on_hand, d_reserved, \
               d_committed, d_ring_fenced, reason, note, ref_kind, ref_id, actor, created_us)",
        width: 14,
        tail: "",
    };
    let bind = |query: Bound, movement: &Movement| {
        query
            .bind(movement.id.to_string())
            .bind(movement.variant.to_string())
            .bind(movement.seq)
            .bind(movement.kind.as_str())
            .bind(movement.by.on_hand)
            .bind(movement.by.reserved)
            .bind(movement.by.committed)
            .bind(movement.by.ring_fenced)
            .bind(movement.reason)
            .bind(movement.note.clone())
            .bind(movement.order.map(|_| "order"))
            .bind(movement.order.map(|order| order.to_string()))
            .bind(movement.actor.clone())
            .bind(movement.created_at.as_micros())
    };
    bulk.execute(tx, movements, bind).await?;
    Ok(())
}

async fn insert_reservations(tx: &mut Tx, book: &Book, now: Timestamp) -> sqlx::Result<()> {
    let made = book.changes.made.iter();
    let made = made.filter_map(|id| Some((*id, book.reservations.get(id)?)));
    let made: Vec<(ReservationId, &Reservation)> = made.collect();
    let bulk = Bulk {
        head: "INSERT INTO reservations (id, order_id, buyer_id, state, reason, expires_us, \
               version, created_us, updated_us)",
        width: 9,
        tail: "",
    };
    let bind = |query: Bound, (id, it): &(ReservationId, &Reservation)| {
        query
            .bind(id.to_string())
            .bind(it.order.to_string())
            .bind(it.buyer.to_string())
            .bind(it.state.as_str())
            .bind(it.reason.map(Released::as_str))
            .bind(it.expires_at.as_micros())
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, &made, bind).await?;
    let mut lines: BTreeMap<(ReservationId, VariantId), i64> = BTreeMap::new();
    for (id, it) in &made {
        for line in &it.lines {
            *lines.entry((*id, line.variant)).or_default() += line.quantity;
        }
    }
    let lines: Vec<_> = lines.into_iter().collect();
    let bulk = Bulk {
        head: "INSERT INTO reservation_lines (reservation_id, variant_id, deal_id, quantity)",
        width: 4,
        tail: "",
    };
    let bind = |query: Bound, ((id, variant), quantity): &((ReservationId, VariantId), i64)| {
        query
            .bind(id.to_string())
            .bind(variant.to_string())
            .bind("")
            .bind(*quantity)
    };
    bulk.execute(tx, &lines, bind).await?;
    Ok(())
}

async fn end_reservations(tx: &mut Tx, book: &Book, now: Timestamp) -> sqlx::Result<()> {
    let ended = book.changes.ended.iter();
    let ended = ended.filter_map(|id| Some((*id, book.reservations.get(id)?)));
    let ended: Vec<(ReservationId, &Reservation)> = ended.collect();
    let bulk = Bulk {
        head: "WITH ended (id, state, reason, now_us) AS (",
        width: 4,
        tail: ") UPDATE reservations SET state = ended.state, reason = NULLIF(ended.reason, ''), \
               version = version + 1, updated_us = ended.now_us FROM ended \
               WHERE reservations.id = ended.id AND reservations.state = 'active'",
    };
    let bind = |query: Bound, (id, it): &(ReservationId, &Reservation)| {
        query
            .bind(id.to_string())
            .bind(it.state.as_str())
            .bind(it.reason.map_or("", Released::as_str))
            .bind(now.as_micros())
    };
    let changed = bulk.execute(tx, &ended, bind).await?;
    if usize::try_from(changed).is_ok_and(|changed| changed == ended.len()) {
        return Ok(());
    }
    // They were locked and active when they were loaded.
    Err(sqlx::Error::RowNotFound)
}

async fn save_units(
    tx: &mut Tx,
    units: &BTreeMap<(AccountId, VariantId), i64>,
) -> sqlx::Result<()> {
    let changed = units.iter().filter(|(_, by)| **by != 0);
    let changed: Vec<_> = changed.map(|(key, by)| (*key, *by)).collect();
    let (more, less): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(_, by)| *by > 0);
    let bulk = Bulk {
        head: "INSERT INTO buyer_units (buyer_id, scope_id, units)",
        width: 3,
        tail: "ON CONFLICT (buyer_id, scope_id) \
               DO UPDATE SET units = buyer_units.units + excluded.units",
    };
    let bind = |query: Bound, ((buyer, variant), by): &((AccountId, VariantId), i64)| {
        query
            .bind(buyer.to_string())
            .bind(variant.to_string())
            .bind(*by)
    };
    bulk.execute(tx, &more, bind).await?;
    // An upsert of a negative number would be refused before it met the row.
    let bulk = Bulk {
        head: "WITH less (buyer, scope, n) AS (",
        width: 3,
        tail: ") UPDATE buyer_units SET units = units + less.n FROM less \
               WHERE buyer_id = less.buyer AND scope_id = less.scope",
    };
    bulk.execute(tx, &less, bind).await?;
    Ok(())
}

/// The counters of a variant as they are stored.
pub(in crate::catalog) fn read_stock(row: &AnyRow, at: usize) -> sqlx::Result<Stock> {
    Ok(Stock {
        on_hand: row.try_get(at)?,
        reserved: row.try_get(at + 1)?,
        committed: row.try_get(at + 2)?,
        ring_fenced: row.try_get(at + 3)?,
        safety: row.try_get(at + 4)?,
        incoming: row.try_get(at + 5)?,
        per_buyer_limit: row.try_get(at + 6)?,
        movement_seq: row.try_get(at + 7)?,
        version: row.try_get(at + 8)?,
    })
}
