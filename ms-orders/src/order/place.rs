use std::collections::{BTreeSet, HashMap};

use ::events::inventory::Shortage;
use ::events::orders::OrderCreated;
use ::events::{Item, OrderId};
use chrono::{DateTime, Utc};
use messaging::{Fault, Outgoing, Trace, outbox};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{Order, lines, orders};
use crate::catalogue;
use crate::checkout::{self, Basket, Quote};
use crate::status::Status;

/// The cause of an order's first step.
const CAUSE: &str = "createOrder";

/// An order to be placed.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Its id, should it be new.
    pub id: OrderId,
    /// What it is for.
    pub basket: Basket,
    /// Names the request: the same key again is the same order again.
    pub idempotency_key: Option<String>,
    /// What its payment is to be made with.
    pub payment_reference: Option<String>,
    /// The fee, in per cent.
    pub fee_percent: Decimal,
    /// How long inventory has to answer before it is asked again, in seconds.
    pub reask_after_seconds: u32,
    /// The trace it is placed in.
    pub trace: Trace,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be priced.
    #[error(transparent)]
    Refused(#[from] checkout::Refused),
    /// The key was used for another order.
    #[error("this idempotency key was used for another order")]
    KeyReused {
        /// The order it was used for.
        order_id: String,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Places orders, and has their events go out once the transaction is committed: a constant number of statements,
/// however many. An order whose idempotency key was used for the same order before is that order, whatever the prices
/// are now. One that cannot be placed does not hinder the others.
///
/// # Errors
/// Those of the database, which are everybody's.
pub async fn place(conn: &mut PgConnection, new: &[NewOrder]) -> Result<Vec<Result<Order, PlaceError>>, Fault> {
    let mut known = Known::find(conn, new).await?;
    let unknown: Vec<&NewOrder> = new.iter().filter(|new| known.answer(new).is_none()).collect();
    let product_ids: BTreeSet<i64> = unknown.iter().flat_map(|new| new.basket.product_ids()).collect();
    let sold = catalogue::sold(conn, &Vec::from_iter(product_ids)).await?;
    let (mut quoted, mut refused) = (Vec::with_capacity(unknown.len()), HashMap::new());
    for new in unknown {
        match checkout::quote(&new.basket, &sold, new.fee_percent) {
            Ok(quote) => quoted.push((new, quote)),
            Err(reason) => drop(refused.insert(&new.id, reason)),
        }
    }
    let mut placed = insert(conn, &mut quoted).await?;
    if placed.len() < quoted.len() {
        // Somebody with the same key was faster, and has committed: the insert waited for that.
        known = Known::find(conn, new).await?;
    }
    let answer = |new: &NewOrder| match (placed.remove(new.id.as_str()), refused.remove(&new.id)) {
        (Some(order), _) => Ok(order),
        (None, Some(reason)) => Err(reason.into()),
        (None, None) => {
            known.answer(new).unwrap_or_else(|| Err(Fault::Sticky(anyhow::anyhow!("a key without an order")).into()))
        }
    };
    Ok(new.iter().map(answer).collect())
}

/// Orders that were placed before, by their idempotency keys, and what they are for.
struct Known(HashMap<String, (Order, Vec<Item>)>);

impl Known {
    async fn find(conn: &mut PgConnection, new: &[NewOrder]) -> sqlx::Result<Self> {
        let keys: Vec<&str> = new.iter().filter_map(|new| new.idempotency_key.as_deref()).collect();
        if keys.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let orders = orders!("where idempotency_key = any($1)", &keys as &[&str]).fetch_all(&mut *conn).await?;
        let ids: Vec<String> = orders.iter().map(|order| order.id.clone()).collect();
        let mut items: HashMap<String, Vec<Item>> = HashMap::new();
        for line in if ids.is_empty() { Vec::new() } else { lines(conn, &ids).await? } {
            let item = Item { product_id: line.product_id, quantity: line.quantity };
            items.entry(line.order_id).or_default().push(item);
        }
        let with_items = |order: Order| {
            let items = items.remove(&order.id).unwrap_or_default();
            Some((order.idempotency_key.clone()?, (order, items)))
        };
        Ok(Self(orders.into_iter().filter_map(with_items).collect()))
    }

    fn answer(&self, new: &NewOrder) -> Option<Result<Order, PlaceError>> {
        let (order, items) = self.0.get(new.idempotency_key.as_deref()?)?;
        Some(if *items == new.basket.items() && order.payment_reference == new.payment_reference {
            Ok(order.clone())
        } else {
            Err(PlaceError::KeyReused { order_id: order.id.clone() })
        })
    }
}

/// Stores orders and their events, and returns those whose key was free.
async fn insert(conn: &mut PgConnection, quoted: &mut [(&NewOrder, Quote)]) -> Result<HashMap<String, Order>, Fault> {
    if quoted.is_empty() {
        return Ok(HashMap::new());
    }
    // In one order, so that two who insert the same keys wait in one direction only.
    quoted.sort_unstable_by_key(|(new, _)| &new.idempotency_key);
    let message = |(new, _): &(&NewOrder, Quote)| {
        Outgoing::of(&OrderCreated { order_id: new.id.clone(), items: new.basket.items() }, new.trace)
    };
    let mut messages = quoted.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let created = insert_orders(conn, quoted, &messages).await?;
    messages.retain(|message| created.contains_key(&message.key));
    outbox::enqueue(conn, &messages).await?;
    let order = |(new, quote): &(&NewOrder, Quote)| {
        let (id, created_at) = created.get_key_value(new.id.as_str())?;
        Some((id.clone(), pending(new, quote, *created_at)))
    };
    Ok(quoted.iter().filter_map(order).collect())
}

/// Stores orders with their lines and their first steps, and tells when those were created whose key was free.
async fn insert_orders(
    conn: &mut PgConnection,
    quoted: &[(&NewOrder, Quote)],
    messages: &[Outgoing],
) -> sqlx::Result<HashMap<String, DateTime<Utc>>> {
    let lines: Vec<_> =
        quoted.iter().flat_map(|(new, quote)| quote.lines.iter().map(|line| (new.id.as_str(), line))).collect();
    macro_rules! column {
        ($rows:ident, $get:expr) => {
            &$rows.iter().map($get).collect::<Vec<_>>()
        };
    }
    let rows = sqlx::query!(
        r#"with placed as (
               insert into orders (id, idempotency_key, payment_reference, subtotal, fee, total, next_ask_at)
               select id, idempotency_key, payment_reference, subtotal, fee, total, now() + make_interval(secs => wait)
               from unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[], $7::float[])
                   as new (id, idempotency_key, payment_reference, subtotal, fee, total, wait)
               on conflict (idempotency_key) do nothing
               returning id, created_at
           ), step as (
               insert into order_steps (order_id, status, cause, message_id, trace_id)
               select id, 'pending', $8, message_id, trace_id
               from unnest($1::text[], $9::text[], $10::text[]) as new (id, message_id, trace_id)
               join placed using (id)
           ), line as (
               insert into order_lines (order_id, product_id, sku, name, quantity, unit_price, catalogue_version)
               select new.*
               from unnest(
                   $11::text[], $12::bigint[], $13::text[], $14::text[], $15::bigint[], $16::numeric[], $17::bigint[]
               ) as new (id, product_id, sku, name, quantity, unit_price, catalogue_version)
               join placed using (id)
           )
           select id, created_at from placed"#,
        column!(quoted, |(new, _)| new.id.as_str()) as &[&str],
        column!(quoted, |(new, _)| new.idempotency_key.as_deref()) as &[Option<&str>],
        column!(quoted, |(new, _)| new.payment_reference.as_deref()) as &[Option<&str>],
        column!(quoted, |(_, quote)| quote.subtotal),
        column!(quoted, |(_, quote)| quote.fee),
        column!(quoted, |(_, quote)| quote.total),
        column!(quoted, |(new, _)| f64::from(new.reask_after_seconds)),
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
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.created_at)).collect())
}

/// A new order as the database has it.
fn pending(new: &NewOrder, quote: &Quote, created_at: DateTime<Utc>) -> Order {
    Order {
        id: new.id.as_str().to_owned(),
        status: Status::Pending,
        idempotency_key: new.idempotency_key.clone(),
        subtotal: quote.subtotal,
        fee: quote.fee,
        total: quote.total,
        payment_reference: new.payment_reference.clone(),
        expires_at: None,
        reason: None,
        shortages: None,
        created_at,
        updated_at: created_at,
    }
}
