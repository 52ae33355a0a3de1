//! What is done about orders for which nothing has happened for too long, so that none is left where it is for ever: even
//! a broker that lost its disk heals.
//!
//! Inventory is asked again for the answer it owes to an order that was placed, paid or refunded. An order whose stock was
//! held and is not paid when its time is up is cancelled, whether inventory has told of it or not.

use std::time::Duration;

use ::events::orders::{OrderCompleted, OrderCreated, OrderRefunded};
use ::events::{Item, OrderId};
use database::Pool;
use messaging::outbox::Relay;
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::config::Shop;
use crate::order::{self, News, What};
use crate::status::Status;

/// The most orders in one transaction.
const STEP: i64 = 250;

/// The longest pause between two questions, in seconds. An order that is this old waits for a person, not for a retry.
const LAST_PAUSE_SECONDS: f64 = 3_600.0;

/// Looks once in each period until `shutdown`.
pub async fn run(pool: &Pool, relay: &Relay, shop: &Shop, shutdown: &CancellationToken) {
    let period = Duration::from_millis(shop.reask_period_ms);
    while shutdown.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
        if let Err(error) = sweep(pool, relay, shop).await {
            tracing::warn!(%error, "overdue orders have to wait");
        }
    }
}

/// Does what is overdue, and forgets old idempotency keys. Orders whose last event is still in the outbox only wait on.
/// Tells about how many orders inventory was asked.
///
/// # Errors
/// When the database fails; what was done so far stays done.
pub async fn sweep(pool: &Pool, relay: &Relay, shop: &Shop) -> Result<usize, Fault> {
    let mut asked = 0;
    loop {
        let mut tx = pool.begin().await?;
        let overdue = postpone(&mut tx, shop).await?;
        let out_of_time: Vec<News> =
            overdue.iter().filter(|order| order.status == Status::Confirmed).map(Overdue::out_of_time).collect();
        let outcomes = order::advance(&mut tx, &out_of_time, shop.waits()).await?;
        let questions = questions(&mut tx, &overdue).await?;
        outbox::enqueue(&mut tx, &questions).await?;
        tx.commit().await?;
        order::count_settled(&outcomes);
        if !questions.is_empty() {
            tracing::info!(orders.len = questions.len(), "inventory left orders unanswered; asking again");
            metrics::counter!("orders_reasked_total").increment(questions.len() as u64);
        }
        if !overdue.is_empty() {
            relay.wake();
        }
        asked += questions.len();
        if overdue.len() < STEP as usize {
            break;
        }
    }
    let mut tx = pool.begin().await?;
    order::forget_requests(&mut tx, shop.idempotency_ttl_hours).await?;
    tx.commit().await?;
    Ok(asked)
}

/// An order for which nothing has happened for too long.
struct Overdue {
    id: OrderId,
    status: Status,
    reason: Option<String>,
    restock: bool,
}

impl Overdue {
    fn out_of_time(&self) -> News {
        News { order_id: self.id.clone(), what: What::OutOfTime, message_id: None, trace: Trace::start() }
    }

    /// The event that inventory has not answered.
    fn question(&self, items: Vec<Item>) -> Option<serde_json::Result<Outgoing>> {
        let (order_id, trace) = (self.id.clone(), Trace::start());
        match self.status {
            Status::Pending => Some(Outgoing::of(&OrderCreated { order_id, items }, trace)),
            Status::Refunded if self.restock => {
                let reason = self.reason.clone().unwrap_or_default();
                Some(Outgoing::of(&OrderRefunded { order_id, reason, restock: true }, trace))
            }
            // The goods of a refunded one stay away, and inventory has not said yet that it has sold them.
            Status::Completed | Status::Refunded => Some(Outgoing::of(&OrderCompleted { order_id, items }, trace)),
            Status::Confirmed | Status::Cancelled => None,
        }
    }
}

/// The overdue orders; the next time is twice as far away. Another instance's are left to it.
async fn postpone(conn: &mut PgConnection, shop: &Shop) -> Result<Vec<Overdue>, Fault> {
    let rows = sqlx::query!(
        r#"with overdue as (
               select id
               from orders
               where overdue_at <= now()
               order by overdue_at
               limit $1
               for update skip locked
           )
           update orders
           set asks = asks + 1,
               overdue_at = now() + make_interval(secs => least($2 * 2 ^ least(asks + 1, 16), $3))
           from overdue
           where orders.id = overdue.id
           returning orders.id, orders.status as "status: Status", orders.reason, orders.restock"#,
        STEP,
        f64::from(shop.reask_after_seconds),
        LAST_PAUSE_SECONDS,
    )
    .fetch_all(conn)
    .await?;
    let overdue = rows.into_iter().map(|row| {
        let id = OrderId::try_from(row.id).map_err(|error| Fault::Sticky(error.into()))?;
        Ok(Overdue { id, status: row.status, reason: row.reason, restock: row.restock })
    });
    overdue.collect()
}

async fn questions(conn: &mut PgConnection, overdue: &[Overdue]) -> Result<Vec<Outgoing>, Fault> {
    let ids: Vec<String> = overdue.iter().map(|order| order.id.to_string()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let unsent = outbox::waiting(conn, &ids).await?;
    let mut items = order::items(conn, &ids).await?;
    let unanswered = overdue.iter().filter(|order| !unsent.contains(order.id.as_str()));
    let questions = unanswered.filter_map(|order| order.question(items.remove(order.id.as_str()).unwrap_or_default()));
    Ok(questions.collect::<Result<_, _>>()?)
}
