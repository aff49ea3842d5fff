//! Checkouts and orders in SQL; what a batch writes costs a statement a table.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor, Row as _};

use super::complete::VIRTUAL_CONFIRMED_AFTER;
use super::model::{Checkout, Line, Order, ShipTo, Status, Wish};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Tx, parsed, select_in};
use crate::ids::{
    AccountId, AttemptId, CheckoutId, CreatorId, LineId, MerchantId, OrderId, PaymentId,
    ReservationId, VariantId,
};
use crate::money::{Currency, Money};

/// How many unpaid checkouts each of these buyers has.
pub(super) async fn unpaid(
    tx: &mut Tx,
    buyers: impl IntoIterator<Item = AccountId>,
) -> sqlx::Result<HashMap<AccountId, i64>> {
    let select = "SELECT buyer_id, COUNT(*) FROM checkouts WHERE state = 'open' AND buyer_id IN";
    let mut counts = HashMap::new();
    for row in select_in(tx, select, " GROUP BY buyer_id", buyers).await? {
        counts.insert(parsed(&row, 0)?, row.try_get(1)?);
    }
    Ok(counts)
}

/// Writes checkouts with their orders, lines, first history and payment.
pub(super) async fn insert(
    tx: &mut Tx,
    now: Timestamp,
    placed: &[(&Wish, &Checkout, Timestamp)],
) -> sqlx::Result<()> {
    insert_checkouts(tx, now, placed).await?;
    insert_payments(tx, now, placed).await?;
    let orders = placed.iter();
    let orders = orders.flat_map(|(wish, checkout, _)| {
        checkout
            .orders
            .iter()
            .map(move |order| (*wish, *checkout, order))
    });
    let orders: Vec<(&Wish, &Checkout, &Order)> = orders.collect();
    insert_orders(tx, now, &orders).await?;
    let lines = orders.iter();
    let lines = lines.flat_map(|(_, _, order)| order.lines.iter().map(|line| (order.id, line)));
    insert_lines(tx, &lines.collect::<Vec<_>>()).await?;
    let history = orders.iter().map(|(wish, _, order)| Step {
        order: order.id,
        seq: 1,
        from: None,
        event: "place",
        to: Status::Reserved,
        actor: wish.buyer.to_string(),
    });
    append_history(tx, now, &history.collect::<Vec<_>>()).await
}

async fn insert_checkouts(
    tx: &mut Tx,
    now: Timestamp,
    placed: &[(&Wish, &Checkout, Timestamp)],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO checkouts (id, buyer_id, state, due, currency, client_ref, \
               pay_before_us, version, created_us, updated_us)",
        width: 10,
        tail: "",
    };
    let bind = |query: Bound, (wish, checkout, pay_before): &(&Wish, &Checkout, Timestamp)| {
        query
            .bind(checkout.id.to_string())
            .bind(wish.buyer.to_string())
            .bind("open")
            .bind(checkout.due.amount_minor())
            .bind(checkout.due.currency().as_str().to_owned())
            .bind(wish.client_ref.clone())
            .bind(pay_before.as_micros())
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, placed, bind).await?;
    Ok(())
}

async fn insert_payments(
    tx: &mut Tx,
    now: Timestamp,
    placed: &[(&Wish, &Checkout, Timestamp)],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO payments (id, checkout_id, buyer_id, status, amount, captured, \
               refunded, overpaid, currency, version, created_us, updated_us)",
        width: 12,
        tail: "",
    };
    let bind = |query: Bound, (wish, checkout, _): &(&Wish, &Checkout, Timestamp)| {
        let query = query
            .bind(checkout.payment.to_string())
            .bind(checkout.id.to_string())
            .bind(wish.buyer.to_string())
            .bind("pending")
            .bind(checkout.due.amount_minor());
        let query = (0..3).fold(query, |query, _zero| query.bind(0_i64));
        query
            .bind(checkout.due.currency().as_str().to_owned())
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, placed, bind).await?;
    Ok(())
}

async fn insert_orders(
    tx: &mut Tx,
    now: Timestamp,
    orders: &[(&Wish, &Checkout, &Order)],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO orders (id, checkout_id, merchant_id, buyer_id, reservation_id, \
               status, payment_status, fulfilment, disputed, late, discount_merchant, \
               discount_platform, refunded, items, shipping, due, currency, ship_to, room_id, \
               creator_id, is_virtual, version, created_us, updated_us)",
        width: 24,
        tail: "",
    };
    let bind = |query: Bound, (wish, checkout, order): &(&Wish, &Checkout, &Order)| {
        let query = query
            .bind(order.id.to_string())
            .bind(checkout.id.to_string())
            .bind(order.merchant.to_string())
            .bind(wish.buyer.to_string())
            .bind(order.reservation.to_string())
            .bind(Status::Reserved.as_str())
            .bind("unpaid")
            .bind("none");
        let query = (0..5).fold(query, |query, _zero| query.bind(0_i64));
        query
            .bind(order.items)
            .bind(order.shipping)
            .bind(order.due)
            .bind(checkout.due.currency().as_str().to_owned())
            .bind(wish.ship_to.as_ref().map(text_of))
            .bind(order.sold_in.map(|(room, _)| room.to_string()))
            .bind(order.sold_in.map(|(_, creator)| creator.to_string()))
            .bind(i64::from(order.is_virtual))
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, orders, bind).await?;
    Ok(())
}

fn text_of(ship_to: &ShipTo) -> String {
    serde_json::to_string(ship_to).expect("an address is plain text")
}

async fn insert_lines(tx: &mut Tx, lines: &[(OrderId, &Line)]) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO order_lines (id, order_id, variant_id, product_title, options, \
               quantity, unit_price, base, price_explain, platform_bps, creator_bps, offer_hash, \
               entry_id, discount_merchant, discount_platform, affiliate_bps, shipped, \
               refunded_quantity, refunded_amount)",
        width: 19,
        tail: "",
    };
    let bind = |query: Bound, (order, line): &(OrderId, &Line)| {
        let query = query
            .bind(line.id.to_string())
            .bind(order.to_string())
            .bind(line.variant.to_string())
            .bind(line.title.clone())
            .bind(line.options.clone())
            .bind(line.quantity)
            .bind(line.unit_price)
            .bind(line.base)
            .bind(line.explain.clone())
            .bind(line.platform_bps)
            .bind(line.creator_bps)
            .bind(line.offer_hash.clone())
            .bind(line.entry.map(|entry| entry.to_string()));
        (0..6).fold(query, |query, _zero| query.bind(0_i64))
    };
    bulk.execute(tx, lines, bind).await?;
    Ok(())
}

/// One step of an order's life.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) order: OrderId,
    pub(super) seq: i64,
    pub(super) from: Option<Status>,
    pub(super) event: &'static str,
    pub(super) to: Status,
    pub(super) actor: String,
}

pub(super) async fn append_history(
    tx: &mut Tx,
    now: Timestamp,
    steps: &[Step],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO order_history (order_id, seq, from_status, event, to_status, actor, \
               data, at_us)",
        width: 8,
        tail: "",
    };
    let bind = |query: Bound, step: &Step| {
        query
            .bind(step.order.to_string())
            .bind(step.seq)
            .bind(step.from.map(Status::as_str))
            .bind(step.event)
            .bind(step.to.as_str())
            .bind(step.actor.clone())
            .bind("{}")
            .bind(now.as_micros())
    };
    bulk.execute(tx, steps, bind).await?;
    Ok(())
}

/// A checkout as it stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) id: CheckoutId,
    pub(super) buyer: AccountId,
    pub(super) state: String,
    pub(super) due: Money,
    pub(super) pay_before: Timestamp,
    pub(super) payment: PaymentId,
    pub(super) attempts: i64,
    pub(super) orders: Vec<StandingOrder>,
}

/// An order as it stands.
#[derive(Clone, Debug)]
pub(super) struct StandingOrder {
    pub(super) id: OrderId,
    pub(super) checkout: CheckoutId,
    pub(super) merchant: MerchantId,
    pub(super) buyer: AccountId,
    pub(super) reservation: ReservationId,
    pub(super) status: Status,
    pub(super) payment_status: String,
    pub(super) fulfilment: String,
    pub(super) items: i64,
    pub(super) shipping: i64,
    pub(super) due: i64,
    pub(super) currency: Currency,
    pub(super) ship_to: Option<String>,
    pub(super) paid_at: Option<Timestamp>,
    pub(super) creator: Option<CreatorId>,
    pub(super) is_virtual: bool,
    pub(super) auto_confirm_at: Option<Timestamp>,
    pub(super) version: i64,
    pub(super) created_at: Timestamp,
    pub(super) lines: Vec<StandingLine>,
}

/// A line of an order as it stands.
#[derive(Clone, Debug)]
pub(super) struct StandingLine {
    pub(super) id: LineId,
    pub(super) variant: VariantId,
    pub(super) title: String,
    pub(super) options: String,
    pub(super) quantity: i64,
    pub(super) unit_price: i64,
    pub(super) base: i64,
    pub(super) creator_bps: i64,
    pub(super) platform_bps: i64,
    pub(super) shipped: i64,
    pub(super) refunded_amount: i64,
}

const ORDER: &str = "SELECT id, checkout_id, merchant_id, buyer_id, reservation_id, status, \
                     payment_status, fulfilment, items, shipping, due, currency, ship_to, \
                     paid_us, version, created_us, creator_id, is_virtual, auto_confirm_us \
                     FROM orders WHERE ";

/// Checkouts of these ids, each with its orders; locked until the commit in a transaction.
pub(super) async fn checkouts(
    db: &mut AnyConnection,
    lock: &str,
    ids: impl IntoIterator<Item = CheckoutId>,
) -> sqlx::Result<HashMap<CheckoutId, Standing>> {
    let ids: Vec<CheckoutId> = ids.into_iter().collect();
    let select = "SELECT c.id, c.buyer_id, c.state, c.due, c.currency, c.pay_before_us, p.id, \
                  (SELECT COUNT(*) FROM payment_attempts a WHERE a.payment_id = p.id) \
                  FROM checkouts c JOIN payments p ON p.checkout_id = c.id WHERE c.id IN";
    let mut found = HashMap::new();
    for row in select_in(db, select, &format!(" ORDER BY c.id{lock}"), &ids).await? {
        let standing = Standing {
            id: parsed(&row, 0)?,
            buyer: parsed(&row, 1)?,
            state: row.try_get(2)?,
            due: Money::new(row.try_get(3)?, currency(&row, 4)?),
            pay_before: Timestamp::from_micros(row.try_get(5)?),
            payment: parsed(&row, 6)?,
            attempts: row.try_get(7)?,
            orders: Vec::new(),
        };
        found.insert(standing.id, standing);
    }
    let select = format!("{ORDER} checkout_id IN");
    for row in select_in(db, &select, &format!(" ORDER BY id{lock}"), &ids).await? {
        let order = read_order(&row)?;
        if let Some(standing) = found.get_mut(&order.checkout) {
            standing.orders.push(order);
        }
    }
    Ok(found)
}

/// Adds the lines of orders.
pub(super) async fn add_lines(
    db: &mut AnyConnection,
    orders: &mut [StandingOrder],
) -> sqlx::Result<()> {
    let select = "SELECT order_id, id, variant_id, product_title, options, quantity, unit_price, \
                  base, creator_bps, platform_bps, shipped, refunded_amount \
                  FROM order_lines WHERE order_id IN";
    let ids = orders.iter().map(|order| order.id);
    let mut lines: BTreeMap<OrderId, Vec<StandingLine>> = BTreeMap::new();
    for row in select_in(db, select, " ORDER BY order_id, id", ids).await? {
        lines
            .entry(parsed(&row, 0)?)
            .or_default()
            .push(StandingLine {
                id: parsed(&row, 1)?,
                variant: parsed(&row, 2)?,
                title: row.try_get(3)?,
                options: row.try_get(4)?,
                quantity: row.try_get(5)?,
                unit_price: row.try_get(6)?,
                base: row.try_get(7)?,
                creator_bps: row.try_get(8)?,
                platform_bps: row.try_get(9)?,
                shipped: row.try_get(10)?,
                refunded_amount: row.try_get(11)?,
            });
    }
    for order in orders {
        order.lines = lines.remove(&order.id).unwrap_or_default();
    }
    Ok(())
}

/// The order of this id; locked until the commit in a transaction.
pub(super) async fn order(
    db: &mut AnyConnection,
    lock: &str,
    id: OrderId,
) -> sqlx::Result<Option<StandingOrder>> {
    Ok(orders(db, lock, &[id]).await?.pop())
}

/// The orders of these ids, in their order; those that do not exist are missing.
pub(super) async fn orders(
    db: &mut AnyConnection,
    lock: &str,
    ids: &[OrderId],
) -> sqlx::Result<Vec<StandingOrder>> {
    let select = format!("{ORDER} id IN");
    let rows = select_in(db, &select, &format!(" ORDER BY id{lock}"), ids).await?;
    let mut orders: Vec<StandingOrder> = rows.iter().map(read_order).collect::<Result<_, _>>()?;
    add_lines(db, &mut orders).await?;
    Ok(orders)
}

/// The number of the last step of an order.
pub(super) async fn last_step(tx: &mut Tx, order: OrderId) -> sqlx::Result<i64> {
    let sql = "SELECT MAX(seq) FROM order_history WHERE order_id = $1";
    let row = tx
        .fetch_one(sqlx::query(sql).bind(order.to_string()))
        .await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
}

/// Orders of a buyer, by id; one more than `limit` when there are more.
pub(super) async fn orders_of(
    db: &mut AnyConnection,
    buyer: AccountId,
    (test, order, from): (&str, &str, &str),
    limit: i64,
) -> sqlx::Result<Vec<StandingOrder>> {
    let sql = format!("{ORDER} buyer_id = $1 AND id {test} $2 ORDER BY id {order} LIMIT $3");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(buyer.to_string())
        .bind(from.to_owned())
        .bind(limit);
    let rows = query.fetch_all(&mut *db).await?;
    let mut orders: Vec<StandingOrder> = rows.iter().map(read_order).collect::<Result<_, _>>()?;
    add_lines(db, &mut orders).await?;
    Ok(orders)
}

fn read_order(row: &AnyRow) -> sqlx::Result<StandingOrder> {
    let status: String = row.try_get(5)?;
    let status = Status::parse(&status).ok_or_else(|| sqlx::Error::Decode(status.into()))?;
    let paid_us: Option<i64> = row.try_get(13)?;
    let creator: Option<String> = row.try_get(16)?;
    let auto_confirm_us: Option<i64> = row.try_get(18)?;
    Ok(StandingOrder {
        id: parsed(row, 0)?,
        checkout: parsed(row, 1)?,
        merchant: parsed(row, 2)?,
        buyer: parsed(row, 3)?,
        reservation: parsed(row, 4)?,
        status,
        payment_status: row.try_get(6)?,
        fulfilment: row.try_get(7)?,
        items: row.try_get(8)?,
        shipping: row.try_get(9)?,
        due: row.try_get(10)?,
        currency: currency(row, 11)?,
        ship_to: row.try_get(12)?,
        paid_at: paid_us.map(Timestamp::from_micros),
        version: row.try_get(14)?,
        created_at: Timestamp::from_micros(row.try_get(15)?),
        creator: creator.and_then(|id| id.parse().ok()),
        is_virtual: row.try_get::<i64, _>(17)? != 0,
        auto_confirm_at: auto_confirm_us.map(Timestamp::from_micros),
        lines: Vec::new(),
    })
}

/// Where a checkout goes, with all its orders.
#[derive(Clone, Debug)]
pub(super) struct Going {
    pub(super) checkout: CheckoutId,
    pub(super) payment: PaymentId,
    pub(super) to: Status,
    pub(super) captured: i64,
    pub(super) orders: Vec<(OrderId, Status)>,
    pub(super) event: &'static str,
    pub(super) actor: String,
}

/// Moves checkouts that are open, with their orders and payments; each was locked when it was read.
pub(super) async fn go(tx: &mut Tx, now: Timestamp, going: &[Going]) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "WITH going (id, state, reason, now_us) AS (",
        width: 4,
        tail: ") UPDATE checkouts SET state = going.state, \
               close_reason = NULLIF(going.reason, ''), version = version + 1, \
               updated_us = going.now_us FROM going \
               WHERE checkouts.id = going.id AND checkouts.state = 'open'",
    };
    let bind = |query: Bound, it: &Going| {
        let is_paid = it.to == Status::Paid;
        let reason = if is_paid { "" } else { it.to.as_str() };
        let query = query.bind(it.checkout.to_string()).bind(it.to.as_str());
        query.bind(reason).bind(now.as_micros())
    };
    all(bulk.execute(tx, going, bind).await?, going.len())?;
    let bulk = Bulk {
        head: "WITH going (id, status, captured, at_us, now_us) AS (",
        width: 5,
        tail: ") UPDATE payments SET status = going.status, captured = going.captured, \
               captured_us = NULLIF(going.at_us, 0), version = version + 1, \
               updated_us = going.now_us FROM going \
               WHERE payments.id = going.id AND payments.status = 'pending'",
    };
    let bind = |query: Bound, it: &Going| {
        let (status, at) = match it.to {
            Status::Paid => ("captured", now.as_micros()),
            other => (other.as_str(), 0),
        };
        let query = query.bind(it.payment.to_string()).bind(status);
        query.bind(it.captured).bind(at).bind(now.as_micros())
    };
    all(bulk.execute(tx, going, bind).await?, going.len())?;
    go_orders(tx, now, going).await
}

async fn go_orders(tx: &mut Tx, now: Timestamp, going: &[Going]) -> sqlx::Result<()> {
    let orders = going.iter();
    let orders = orders.flat_map(|it| it.orders.iter().map(move |(id, from)| (it, *id, *from)));
    let orders: Vec<(&Going, OrderId, Status)> = orders.collect();
    let bulk = Bulk {
        head: "WITH going (id, was, status, payment_status, paid_us, confirm_us, now_us) AS (",
        width: 7,
        tail: ") UPDATE orders SET status = going.status, \
               payment_status = going.payment_status, paid_us = NULLIF(going.paid_us, 0), \
               fulfilment = CASE WHEN is_virtual = 1 AND going.paid_us > 0 THEN 'delivered' \
               ELSE fulfilment END, auto_confirm_us = CASE WHEN is_virtual = 1 \
               AND going.paid_us > 0 THEN going.confirm_us ELSE auto_confirm_us END, \
               version = version + 1, updated_us = going.now_us FROM going \
               WHERE orders.id = going.id AND orders.status = going.was",
    };
    let bind = |query: Bound, (it, id, from): &(&Going, OrderId, Status)| {
        let (payment_status, paid_us) = match it.to {
            Status::Paid => ("paid", now.as_micros()),
            _ => ("unpaid", 0),
        };
        let query = query.bind(id.to_string()).bind(from.as_str());
        let query = query
            .bind(it.to.as_str())
            .bind(payment_status)
            .bind(paid_us);
        let confirm_at = now.plus(VIRTUAL_CONFIRMED_AFTER);
        query.bind(confirm_at.as_micros()).bind(now.as_micros())
    };
    all(bulk.execute(tx, &orders, bind).await?, orders.len())?;
    let ids = orders.iter().map(|(_, id, _)| *id);
    let select = "SELECT order_id, MAX(seq) FROM order_history WHERE order_id IN";
    let mut last: HashMap<OrderId, i64> = HashMap::new();
    for row in select_in(tx, select, " GROUP BY order_id", ids).await? {
        last.insert(parsed(&row, 0)?, row.try_get(1)?);
    }
    let steps = orders.iter().map(|(it, id, from)| Step {
        order: *id,
        seq: last.get(id).copied().unwrap_or(0) + 1,
        from: Some(*from),
        event: it.event,
        to: it.to,
        actor: it.actor.clone(),
    });
    append_history(tx, now, &steps.collect::<Vec<_>>()).await
}

/// What was read under a lock is still so: another number of rows is a fault of ours.
pub(super) fn all(changed: u64, wanted: usize) -> sqlx::Result<()> {
    if usize::try_from(changed).is_ok_and(|changed| changed == wanted) {
        return Ok(());
    }
    Err(sqlx::Error::RowNotFound)
}

/// A try to pay out of a wallet: done at once, or refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    pub(super) payment: PaymentId,
    pub(super) n: i64,
    pub(super) amount: Money,
    pub(super) error: Option<&'static str>,
    pub(super) expires_at: Timestamp,
}

pub(super) async fn insert_attempts(
    tx: &mut Tx,
    now: Timestamp,
    attempts: &[Attempt],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO payment_attempts (id, payment_id, n, provider, method, state, amount, \
               currency, expires_us, tries, error, version, created_us, updated_us)",
        width: 14,
        tail: "",
    };
    let bind = |query: Bound, it: &Attempt| {
        let state = if it.error.is_none() { "paid" } else { "failed" };
        query
            .bind(it.id.to_string())
            .bind(it.payment.to_string())
            .bind(it.n)
            .bind("wallet")
            .bind("balance")
            .bind(state)
            .bind(it.amount.amount_minor())
            .bind(it.amount.currency().as_str().to_owned())
            .bind(it.expires_at.as_micros())
            .bind(1_i64)
            .bind(it.error)
            .bind(1_i64)
            .bind(now.as_micros())
            .bind(now.as_micros())
    };
    bulk.execute(tx, attempts, bind).await?;
    Ok(())
}

/// Open checkouts whose time to pay is over, oldest first.
pub(super) async fn due(
    db: &mut AnyConnection,
    now: Timestamp,
    limit: i64,
) -> sqlx::Result<Vec<CheckoutId>> {
    let sql = "SELECT id FROM checkouts WHERE state = 'open' AND pay_before_us <= $1 \
               ORDER BY pay_before_us LIMIT $2";
    let query = sqlx::query(sql).bind(now.as_micros()).bind(limit);
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|row| parsed(row, 0)).collect()
}

fn currency(row: &AnyRow, at: usize) -> sqlx::Result<Currency> {
    let text: String = row.try_get(at)?;
    Currency::try_from(text).map_err(|err| sqlx::Error::Decode(Box::new(err)))
}
