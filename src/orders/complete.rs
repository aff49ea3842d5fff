//! Receipt, the split of the escrow, and its release (order rule 13 of commerce.md 7, payments.md
//! 14).
//!
//! Invariants
//! - An order is completed in the transaction that empties its escrow.
//! - A settlement is released once, on its day, at 04:00 of the ledger's zone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::json;
use sqlx::{AnyConnection, Executor, Row as _};
use time::{Time, UtcOffset};

use super::model::Status;
use super::store::{self, StandingOrder, Step};
use crate::app::App;
use crate::catalog::{self, Terms};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Tx, parsed, select_in};
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::ids::{MerchantId, OrderId, SettlementId};
use crate::money::Currency;
use crate::payments::{self, Party, Release, Share, Split, spread};

/// Orders completed in one transaction.
const COMPLETED_MAX: i64 = 500;
/// Settlements released in one transaction (payments.md 14).
const RELEASED_MAX: i64 = 5_000;
const RELEASED_AT_HOUR: u8 = 4;

/// Whether an order's receipt may be confirmed as it stands.
pub(super) fn is_confirmable(order: &StandingOrder) -> bool {
    match order.status {
        Status::Fulfilling => true,
        Status::Paid => order.is_virtual,
        _ => false,
    }
}

/// Completes orders that were locked and found confirmable.
pub(super) async fn complete(
    tx: &mut Tx,
    app: &App,
    (orders, actor): (&[StandingOrder], &str),
) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let now = app.clock.now();
    let splits: Vec<Split> = orders.iter().map(split).collect();
    payments::split_escrows(tx, now, &splits).await?;
    let terms = catalog::terms(tx, orders.iter().map(|order| order.merchant)).await?;
    let due = |order: &StandingOrder| {
        let days = terms
            .get(&order.merchant)
            .map_or(0, |it: &Terms| it.settle_after_days);
        due_at(now, days, app.config().ledger.utc_offset)
    };
    let settlements = orders.iter().zip(&splits).map(|(order, split)| Settlement {
        id: SettlementId::derived(&["settlement", &order.id.to_string()]),
        order: order.id,
        due_at: due(order),
        split: split.clone(),
    });
    let settlements: Vec<Settlement> = settlements.collect();
    insert(tx, now, &settlements).await?;
    set_completed(tx, now, (orders, actor)).await?;
    let news = orders.iter().zip(&settlements);
    let news = news.flat_map(|(order, settlement)| told(order, settlement));
    events::append_all(tx, now, &news.collect::<Vec<_>>()).await?;
    Ok(())
}

/// Who has what of an order: each line split by its frozen weights, shipping to the merchant.
fn split(order: &StandingOrder) -> Split {
    let mut shares = [0_i64; 3];
    for line in &order.lines {
        let merchant = 10_000 - line.creator_bps - line.platform_bps;
        let base = line.base - line.refunded_amount;
        let parts = spread(base, &[merchant, line.creator_bps, line.platform_bps]);
        for (share, part) in shares.iter_mut().zip(parts) {
            *share += part;
        }
    }
    let [merchant, creator, platform] = shares;
    let merchant = Share {
        party: Party::Merchant(order.merchant),
        amount: merchant + order.shipping,
    };
    let creator = order.creator.map(|id| Share {
        party: Party::Creator(id),
        amount: creator,
    });
    let platform = Share {
        party: Party::Platform,
        amount: platform,
    };
    let shares = [Some(merchant), creator, Some(platform)];
    Split {
        order: order.id,
        currency: order.currency,
        shares: shares.into_iter().flatten().collect(),
    }
}

/// 04:00 of the local day so many days after this moment's.
fn due_at(now: Timestamp, days: i64, offset: UtcOffset) -> Timestamp {
    let date = now.to_datetime().to_offset(offset).date();
    let date = date.checked_add(time::Duration::days(days)).unwrap_or(date);
    let hour = Time::from_hms(RELEASED_AT_HOUR, 0, 0).expect("04:00 is a time");
    Timestamp::from(date.with_time(hour).assume_offset(offset))
}

/// The split of one order and when it is released.
struct Settlement {
    id: SettlementId,
    order: OrderId,
    due_at: Timestamp,
    split: Split,
}

async fn insert(tx: &mut Tx, now: Timestamp, settlements: &[Settlement]) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO settlements (id, order_id, state, currency, due_us, frozen, version, \
               created_us, updated_us)",
        width: 9,
        tail: "",
    };
    let bind = |query: Bound, it: &Settlement| {
        query
            .bind(it.id.to_string())
            .bind(it.order.to_string())
            .bind("scheduled")
            .bind(it.split.currency.as_str().to_owned())
            .bind(it.due_at.as_micros())
            .bind(0_i64)
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, settlements, bind).await?;
    let parts = settlements.iter();
    let parts = parts.flat_map(|it| it.split.shares.iter().map(move |share| (it.id, *share)));
    let parts: Vec<(SettlementId, Share)> = parts.collect();
    let bulk = Bulk {
        head: "INSERT INTO settlement_parts (settlement_id, party_kind, party_id, amount, \
               reversed)",
        width: 5,
        tail: "",
    };
    let bind = |query: Bound, (id, share): &(SettlementId, Share)| {
        query
            .bind(id.to_string())
            .bind(share.party.kind())
            .bind(share.party.id())
            .bind(share.amount)
            .bind(0_i64)
    };
    bulk.execute(tx, &parts, bind).await?;
    Ok(())
}

async fn set_completed(
    tx: &mut Tx,
    now: Timestamp,
    (orders, actor): (&[StandingOrder], &str),
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "WITH done (id, was, now_us) AS (",
        width: 3,
        tail: ") UPDATE orders SET status = 'completed', fulfilment = 'confirmed', \
               completed_us = done.now_us, auto_confirm_us = NULL, version = version + 1, \
               updated_us = done.now_us FROM done \
               WHERE orders.id = done.id AND orders.status = done.was",
    };
    let bind = |query: Bound, order: &StandingOrder| {
        let query = query.bind(order.id.to_string()).bind(order.status.as_str());
        query.bind(now.as_micros())
    };
    store::all(bulk.execute(tx, orders, bind).await?, orders.len())?;
    let mut steps = Vec::new();
    for order in orders {
        steps.push(Step {
            order: order.id,
            seq: store::last_step(tx, order.id).await? + 1,
            from: Some(order.status),
            event: "confirm",
            to: Status::Completed,
            actor: actor.into(),
        });
    }
    store::append_history(tx, now, &steps).await
}

fn told(order: &StandingOrder, settlement: &Settlement) -> [NewEvent; 2] {
    let mut streams = vec![Stream::Merchant(order.merchant)];
    streams.extend(order.creator.map(Stream::Creator));
    let event = |kind, data| NewEvent {
        kind,
        subject_kind: SubjectKind::Order,
        subject_id: order.id.to_string(),
        streams: streams.clone(),
        data,
    };
    [
        event(Kind::OrderCompleted, json!({ "order_id": order.id })),
        event(
            Kind::SettlementScheduled,
            json!({ "order_id": order.id, "settlement_id": settlement.id,
                "due_at": settlement.due_at }),
        ),
    ]
}

/// Completes orders that nobody confirmed in time; how many.
pub(super) async fn confirm_due(app: &App) -> sqlx::Result<usize> {
    let now = app.clock.now();
    let mut reader = app.db.readers().acquire().await?;
    let sql = "SELECT id FROM orders WHERE status IN ('paid', 'fulfilling') AND disputed = 0 \
               AND auto_confirm_us <= $1 ORDER BY auto_confirm_us LIMIT $2";
    let query = sqlx::query(sql).bind(now.as_micros()).bind(COMPLETED_MAX);
    let rows = query.fetch_all(&mut *reader).await?;
    drop(reader);
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<OrderId> = rows
        .iter()
        .map(|row| parsed(row, 0))
        .collect::<Result<_, _>>()?;
    let mut tx = app.db.begin().await?;
    let lock = tx.for_update();
    let orders = store::orders(&mut tx, lock, &ids).await?;
    // Confirmed, disputed or refunded meanwhile: no longer due.
    let is_due = |order: &StandingOrder| {
        is_confirmable(order) && order.auto_confirm_at.is_some_and(|at| at <= now)
    };
    let orders: Vec<StandingOrder> = orders.into_iter().filter(is_due).collect();
    complete(&mut tx, app, (&orders, "system")).await?;
    tx.commit().await?;
    Ok(orders.len())
}

/// Releases settlements that are due, the oldest first; how many.
pub(super) async fn release_due(app: &App) -> sqlx::Result<usize> {
    let now = app.clock.now();
    let sql = "SELECT id FROM settlements WHERE state = 'scheduled' AND due_us <= $1 LIMIT 1";
    let query = sqlx::query(sql).bind(now.as_micros());
    if query.fetch_optional(app.db.readers()).await?.is_none() {
        return Ok(0);
    }
    let mut tx = app.db.begin().await?;
    let releases = due(&mut tx, now).await?;
    payments::release(&mut tx, now, &releases).await?;
    let bulk = Bulk {
        head: "WITH done (id, now_us) AS (",
        width: 2,
        tail: ") UPDATE settlements SET state = 'released', released_us = done.now_us, \
               version = version + 1, updated_us = done.now_us FROM done \
               WHERE settlements.id = done.id AND settlements.state = 'scheduled'",
    };
    let bind =
        |query: Bound, it: &Release| query.bind(it.settlement.to_string()).bind(now.as_micros());
    store::all(
        bulk.execute(&mut tx, &releases, bind).await?,
        releases.len(),
    )?;
    let news = releases.iter().map(|it| NewEvent {
        kind: Kind::SettlementReleased,
        subject_kind: SubjectKind::Settlement,
        subject_id: it.settlement.to_string(),
        streams: it.shares.iter().filter_map(stream_of).collect(),
        data: json!({ "settlement_id": it.settlement }),
    });
    events::append_all(&mut tx, now, &news.collect::<Vec<_>>()).await?;
    tx.commit().await?;
    Ok(releases.len())
}

const fn stream_of(share: &Share) -> Option<Stream> {
    match share.party {
        Party::Merchant(merchant) => Some(Stream::Merchant(merchant)),
        Party::Creator(creator) => Some(Stream::Creator(creator)),
        Party::Platform => None,
    }
}

/// Locks what is due, with its parts.
async fn due(tx: &mut Tx, now: Timestamp) -> sqlx::Result<Vec<Release>> {
    let sql = format!(
        "SELECT id, currency FROM settlements WHERE state = 'scheduled' AND due_us <= $1 \
         ORDER BY due_us, id LIMIT $2{}",
        tx.for_update()
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let query = query.bind(now.as_micros()).bind(RELEASED_MAX);
    let mut order = Vec::new();
    for row in tx.fetch_all(query).await? {
        let id: SettlementId = parsed(&row, 0)?;
        let currency: String = row.try_get(1)?;
        let currency = Currency::try_from(currency);
        order.push((
            id,
            currency.map_err(|err| sqlx::Error::Decode(Box::new(err)))?,
        ));
    }
    let mut shares = shares(tx, order.iter().map(|(id, _)| *id)).await?;
    let merchants = shares
        .values()
        .flatten()
        .filter_map(|share| match share.party {
            Party::Merchant(merchant) => Some(merchant),
            _ => None,
        });
    let merchants: Vec<MerchantId> = merchants.collect();
    let terms = catalog::terms(tx, merchants).await?;
    let releases = order.into_iter().map(|(settlement, currency)| {
        let shares = shares.remove(&settlement).unwrap_or_default();
        let reserve = shares.iter().find_map(|share| match share.party {
            Party::Merchant(merchant) => Some(terms.get(&merchant)?.reserve_bps),
            _ => None,
        });
        Release {
            settlement,
            currency,
            reserve_bps: reserve.unwrap_or(0),
            shares,
        }
    });
    Ok(releases.collect())
}

async fn shares(
    connection: &mut AnyConnection,
    settlements: impl Iterator<Item = SettlementId>,
) -> sqlx::Result<HashMap<SettlementId, Vec<Share>>> {
    let select = "SELECT settlement_id, party_kind, party_id, amount - reversed \
                  FROM settlement_parts WHERE settlement_id IN";
    let order = " ORDER BY settlement_id, party_kind, party_id";
    let mut found: BTreeMap<SettlementId, Vec<Share>> = BTreeMap::new();
    for row in select_in(connection, select, order, settlements).await? {
        let (kind, id): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let party = Party::parse(&kind, &id);
        let share = Share {
            party: party.ok_or_else(|| sqlx::Error::Decode("a party of no kind".into()))?,
            amount: row.try_get(3)?,
        };
        found.entry(parsed(&row, 0)?).or_default().push(share);
    }
    Ok(found.into_iter().collect())
}

/// How long an order of nothing that is sent waits for its confirmation.
pub(super) const VIRTUAL_CONFIRMED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use time::macros::offset;

    use super::*;

    #[test]
    fn a_settlement_is_due_at_four_of_a_local_day() {
        let at = |text| Timestamp::parse(text).unwrap();
        let shanghai = offset!(+8);
        // Half past eleven in the evening of the 30th, over there.
        let completed = at("2026-11-30T15:30:00Z");
        assert_eq!(due_at(completed, 0, shanghai), at("2026-11-29T20:00:00Z"));
        assert_eq!(due_at(completed, 7, shanghai), at("2026-12-06T20:00:00Z"));
        let leap = at("2028-02-22T10:00:00Z");
        assert_eq!(due_at(leap, 7, shanghai), at("2028-02-28T20:00:00Z"));
        assert_eq!(due_at(leap, 7, UtcOffset::UTC), at("2028-02-29T04:00:00Z"));
    }
}
