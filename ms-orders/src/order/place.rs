mod known;
mod unpaid;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ::events::OrderId;
use ::events::orders::OrderCreated;
use auth::Caller;
use chrono::{DateTime, Utc};
use messaging::{Fault, Outgoing, Trace, outbox};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use self::known::{Keys, Known, forget};
use self::unpaid::Accounts;
use super::Order;
use crate::catalogue;
use crate::checkout::{self, Basket, Quote};
use crate::config::Shop;
use crate::status::Status;

pub use unpaid::{OverLimit, Unpaid};

/// The cause of an order's first step.
const CAUSE: &str = "createOrder";

/// An order to be placed.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Its id, should it be new.
    pub id: OrderId,
    /// Who places it, and whose it is.
    pub caller: Caller,
    /// What it is for.
    pub basket: Basket,
    /// Names the request: the same key of the same user again is the same order again.
    pub idempotency_key: Option<String>,
    /// What its payment is to be made with.
    pub payment_reference: Option<String>,
    /// What its customer was told that it costs.
    pub expected_total: Option<Decimal>,
    /// The trace it is placed in.
    pub trace: Trace,
}

impl NewOrder {
    /// What names its request, where something does.
    fn key(&self) -> Option<(Uuid, &str)> {
        Some((self.caller.user_id, self.idempotency_key.as_deref()?))
    }
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be priced.
    #[error(transparent)]
    Refused(#[from] checkout::Refused),
    /// It costs something else than its customer was told.
    #[error("the total is {} now", .0.total)]
    PriceChanged(Box<Quote>),
    /// Its account has too much unpaid.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// Another transaction has locked its account. It can be placed once that has ended.
    #[error("another request is placing orders for this account")]
    AccountBusy,
    /// The key was used for another order.
    #[error("this idempotency key was used for another order")]
    KeyReused {
        /// The order it was used for.
        order_id: String,
    },
    /// The database failed, perhaps for several orders at once.
    #[error(transparent)]
    Fault(Arc<Fault>),
}

impl From<Fault> for PlaceError {
    fn from(fault: Fault) -> Self {
        Self::Fault(Arc::new(fault))
    }
}

/// Places orders, and has their events go out once the transaction is committed: a constant number of statements,
/// however many. An order whose idempotency key was used for the same order before is that order, whatever the prices
/// are now and however much its account has unpaid. One that cannot be placed does not hinder the others, and no order waits
/// for an account that another transaction has locked.
///
/// # Errors
/// Those of the database, which are everybody's.
pub async fn place(
    conn: &mut PgConnection,
    new: &[NewOrder],
    shop: &Shop,
) -> Result<Vec<Result<Order, PlaceError>>, Fault> {
    let ttl_hours = shop.idempotency_ttl_hours;
    let mut accounts = Accounts::lock(conn, new, shop.unpaid).await?;
    let mut known = Known::find(conn, new, ttl_hours).await?;
    let unknown: Vec<&NewOrder> = new.iter().filter(|new| known.answer(new).is_none()).collect();
    let product_ids: BTreeSet<i64> = unknown.iter().flat_map(|new| new.basket.product_ids()).collect();
    let sold = catalogue::sold(conn, &Vec::from_iter(product_ids)).await?;
    if !unknown.is_empty() {
        accounts.count(conn).await?;
    }
    let (mut quoted, mut refused) = (Vec::with_capacity(unknown.len()), HashMap::new());
    let mut keys = HashSet::new();
    for &new in &unknown {
        // Of those with the same key one is placed, and the others are answered with it.
        if new.key().is_some_and(|key| keys.contains(&key)) {
            continue;
        }
        match quote(new, &sold, shop.fee_percent).and_then(|quote| accounts.add(new).map(|()| quote)) {
            Ok(quote) => {
                keys.extend(new.key());
                quoted.push((new, quote));
            }
            Err(reason) => drop(refused.insert(&new.id, reason)),
        }
    }
    let wanted = unknown.len() - refused.len();
    let mut placed = insert(conn, &mut quoted, shop).await?;
    if placed.len() < wanted {
        // Their keys are taken: by one of these; by somebody who was faster and has committed, because the insert waited
        // for that; or by an order so old that they may name another one.
        known = Known::find(conn, new, ttl_hours).await?;
        quoted.retain(|(new, _)| !placed.contains_key(new.id.as_str()) && known.answer(new).is_none());
        if !quoted.is_empty() {
            forget(conn, &Keys::of(quoted.iter().map(|(new, _)| *new)), ttl_hours).await?;
            placed.extend(insert(conn, &mut quoted, shop).await?);
            known = Known::find(conn, new, ttl_hours).await?;
        }
    }
    let answer = |new: &NewOrder| match (placed.remove(new.id.as_str()), refused.remove(&new.id)) {
        (Some(order), _) => Ok(order),
        (None, Some(reason)) => Err(reason),
        (None, None) => {
            known.answer(new).unwrap_or_else(|| Err(Fault::Sticky(anyhow::anyhow!("a key without an order")).into()))
        }
    };
    Ok(new.iter().map(answer).collect())
}

/// What an order costs, if that is what its customer expects.
fn quote(new: &NewOrder, sold: &HashMap<i64, catalogue::Product>, fee_percent: Decimal) -> Result<Quote, PlaceError> {
    let quote = checkout::quote(&new.basket, sold, fee_percent)?;
    match new.expected_total {
        Some(expected) if expected != quote.total => Err(PlaceError::PriceChanged(Box::new(quote))),
        _ => Ok(quote),
    }
}

/// Stores orders and their events, and returns those whose key was free.
async fn insert(
    conn: &mut PgConnection,
    quoted: &mut [(&NewOrder, Quote)],
    shop: &Shop,
) -> Result<HashMap<String, Order>, Fault> {
    if quoted.is_empty() {
        return Ok(HashMap::new());
    }
    // In one order, so that two who insert the same keys wait in one direction only.
    quoted.sort_unstable_by_key(|(new, _)| (new.caller.user_id, &new.idempotency_key));
    let message = |(new, _): &(&NewOrder, Quote)| {
        Outgoing::of(&OrderCreated { order_id: new.id.clone(), items: new.basket.items() }, new.trace)
    };
    let mut messages = quoted.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let created = insert_orders(conn, quoted, &messages, shop).await?;
    messages.retain(|message| created.contains_key(&message.key));
    outbox::enqueue(conn, &messages).await?;
    let order = |(new, quote): &(&NewOrder, Quote)| {
        let (id, created) = created.get_key_value(new.id.as_str())?;
        Some((id.clone(), pending(new, quote, created)))
    };
    Ok(quoted.iter().filter_map(order).collect())
}

/// Stores orders with their lines and their first steps, and tells when those were created whose key was free.
async fn insert_orders(
    conn: &mut PgConnection,
    quoted: &[(&NewOrder, Quote)],
    messages: &[Outgoing],
    shop: &Shop,
) -> sqlx::Result<HashMap<String, Created>> {
    let lines: Vec<_> =
        quoted.iter().flat_map(|(new, quote)| quote.lines.iter().map(|line| (new.id.as_str(), line))).collect();
    macro_rules! column {
        ($rows:ident, $get:expr) => {
            &$rows.iter().map($get).collect::<Vec<_>>()
        };
    }
    let rows = sqlx::query!(
        r#"with placed as (
               insert into orders (
                   id, idempotency_key, payment_reference, subtotal, fee, total, overdue_at, user_id, units
               )
               select id, idempotency_key, payment_reference, subtotal, fee, total, now() + make_interval(secs => $7),
                   user_id, units
               from unnest(
                   $1::text[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[], $18::uuid[],
                   $19::bigint[]
               ) as new (id, idempotency_key, payment_reference, subtotal, fee, total, user_id, units)
               on conflict (user_id, idempotency_key) where idempotency_key is not null do nothing
               returning id, created_at, overdue_at
           ), step as (
               insert into order_steps (order_id, status, cause, message_id, trace_id, actor_id)
               select id, 'pending', $8, message_id, trace_id, user_id
               from unnest($1::text[], $9::text[], $10::text[], $18::uuid[]) as new (id, message_id, trace_id, user_id)
               join placed using (id)
           ), line as (
               insert into order_lines (order_id, product_id, sku, name, quantity, unit_price, catalogue_version)
               select new.*
               from unnest(
                   $11::text[], $12::bigint[], $13::text[], $14::text[], $15::bigint[], $16::numeric[], $17::bigint[]
               ) as new (id, product_id, sku, name, quantity, unit_price, catalogue_version)
               join placed using (id)
           )
           select id, created_at, overdue_at from placed"#,
        column!(quoted, |(new, _)| new.id.as_str()) as &[&str],
        column!(quoted, |(new, _)| new.idempotency_key.as_deref()) as &[Option<&str>],
        column!(quoted, |(new, _)| new.payment_reference.as_deref()) as &[Option<&str>],
        column!(quoted, |(_, quote)| quote.subtotal),
        column!(quoted, |(_, quote)| quote.fee),
        column!(quoted, |(_, quote)| quote.total),
        f64::from(shop.reask_after_seconds),
        CAUSE,
        column!(messages, |message| message.message_id.to_string()),
        column!(quoted, |(new, _)| new.trace.to_string()),
        column!(lines, |(order_id, _)| *order_id) as &[&str],
        column!(lines, |(_, line)| line.product.product_id),
        column!(lines, |(_, line)| line.product.sku.as_str()) as &[&str],
        column!(lines, |(_, line)| line.product.name.as_str()) as &[&str],
        column!(lines, |(_, line)| line.quantity),
        column!(lines, |(_, line)| line.product.price),
        column!(lines, |(_, line)| line.product.version),
        column!(quoted, |(new, _)| new.caller.user_id),
        column!(quoted, |(new, _)| new.basket.units()),
    )
    .fetch_all(conn)
    .await?;
    let created = |created_at, overdue_at| Created { at: created_at, overdue_at };
    Ok(rows.into_iter().map(|row| (row.id, created(row.created_at, row.overdue_at))).collect())
}

/// What the database says of a new order.
struct Created {
    at: DateTime<Utc>,
    overdue_at: Option<DateTime<Utc>>,
}

/// A new order as the database has it.
fn pending(new: &NewOrder, quote: &Quote, created: &Created) -> Order {
    Order {
        id: new.id.as_str().to_owned(),
        user_id: Some(new.caller.user_id),
        status: Status::Pending,
        idempotency_key: new.idempotency_key.clone(),
        subtotal: quote.subtotal,
        fee: quote.fee,
        total: quote.total,
        payment_reference: new.payment_reference.clone(),
        expires_at: None,
        reason: None,
        shortages: None,
        written_off: None,
        created_at: created.at,
        updated_at: created.at,
        overdue_at: created.overdue_at,
        asks: 0,
    }
}
