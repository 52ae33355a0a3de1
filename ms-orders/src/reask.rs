//! Asks inventory again for orders it left unanswered too long, so that even a broker that lost its disk heals.

use std::collections::BTreeMap;
use std::time::Duration;

use ::events::orders::OrderCreated;
use ::events::{Item, OrderId};
use messaging::outbox::Relay;
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::config::Shop;

/// The most orders in one transaction.
const STEP: i64 = 250;

/// The longest pause between two questions, in seconds. An order that is this old waits for a person, not for a retry.
const LAST_PAUSE_SECONDS: f64 = 3_600.0;

/// Looks once in each period until `shutdown`.
pub async fn run(pool: &PgPool, relay: &Relay, shop: &Shop, shutdown: &CancellationToken) {
    let period = Duration::from_millis(shop.reask_period_ms);
    while shutdown.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
        if let Err(error) = reask(pool, relay, shop.reask_after_seconds).await {
            tracing::warn!(%error, "unanswered orders have to wait");
        }
    }
}

/// Asks for all orders whose answer is overdue. Those whose first question is still in the outbox only wait on.
/// Tells how many were asked for.
///
/// # Errors
/// When the database fails; what was asked so far stays asked.
pub async fn reask(pool: &PgPool, relay: &Relay, pause_seconds: u32) -> Result<usize, Fault> {
    let mut asked = 0;
    loop {
        let mut tx = pool.begin().await?;
        let overdue = postpone(&mut tx, pause_seconds).await?;
        let unsent = outbox::waiting(&mut tx, &overdue).await?;
        let unanswered: Vec<&str> = overdue.iter().map(String::as_str).filter(|id| !unsent.contains(*id)).collect();
        let questions = questions(&mut tx, &unanswered).await?;
        outbox::enqueue(&mut tx, &questions).await?;
        tx.commit().await?;
        if !questions.is_empty() {
            tracing::info!(orders.len = questions.len(), "inventory left orders unanswered; asking again");
            metrics::counter!("orders_reasked_total").increment(questions.len() as u64);
            relay.wake();
        }
        asked += questions.len();
        if overdue.len() < STEP as usize {
            return Ok(asked);
        }
    }
}

/// The orders whose answer is overdue; the next time is twice as far away. Another instance's are left to it.
async fn postpone(conn: &mut PgConnection, pause_seconds: u32) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "with overdue as (
             select id
             from orders
             where status = 'pending' and next_ask_at <= now()
             order by next_ask_at
             limit $1
             for update skip locked
         )
         update orders
         set asks = asks + 1,
             next_ask_at = now() + make_interval(secs => least($2 * 2 ^ least(asks + 1, 16), $3))
         from overdue
         where orders.id = overdue.id
         returning orders.id",
        STEP,
        f64::from(pause_seconds),
        LAST_PAUSE_SECONDS,
    )
    .fetch_all(conn)
    .await
}

async fn questions(conn: &mut PgConnection, order_ids: &[&str]) -> Result<Vec<Outgoing>, Fault> {
    let lines = sqlx::query!(
        "select order_id, product_id, quantity
         from order_lines
         where order_id = any($1)
         order by order_id, product_id",
        order_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let mut orders: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for line in lines {
        let item = Item { product_id: line.product_id, quantity: line.quantity };
        orders.entry(line.order_id).or_default().push(item);
    }
    orders
        .into_iter()
        .map(|(order_id, items)| {
            let order_id = OrderId::try_from(order_id).map_err(|error| Fault::Sticky(error.into()))?;
            Ok(Outgoing::of(&OrderCreated { order_id, items }, Trace::start())?)
        })
        .collect()
}
