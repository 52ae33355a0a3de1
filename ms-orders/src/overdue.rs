//! What is done about orders for which nothing has happened for too long, so that none is left where it is for ever: even
//! a broker that lost its disk heals.
//!
//! Inventory is asked again for the answer it owes to an order that was placed, paid or refunded, and about an order whose
//! hold must have ended by now: only inventory, by its clock, says whether it has. An order that is not paid and that
//! inventory never answers is given up: it is cancelled.

use std::time::Duration;

use ::events::orders::{OrderCompleted, OrderCreated, OrderRefunded};
use ::events::{Item, OrderId};
use chrono::{DateTime, Utc};
use database::{Failures, Pool};
use messaging::outbox::Relay;
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::config::Shop;
use crate::order::{self, News, What};
use crate::scan::{Look, Scan};
use crate::status::Status;

/// The most orders in one transaction.
const STEP: i64 = 250;

/// The longest pause between two questions, in seconds. Until then an order waits no longer for a question than it has
/// waited already; an order that is older waits for a person.
const LAST_PAUSE_SECONDS: f64 = 86_400.0;

/// The least questions before an order is given up: where this service was away itself, the answer to an order it has not
/// asked about may be waiting for it.
const LEAST_ASKS: i32 = 5;

/// How often old idempotency keys are looked for.
const FORGET_PERIOD: Duration = Duration::from_secs(60);

/// Does what is overdue, and forgets old idempotency keys, until `shutdown`.
pub async fn run(pool: &Pool, relay: &Relay, shop: &Shop, failures: &Failures, shutdown: &CancellationToken) {
    let scan = Scan::default();
    let step = || async { Ok::<_, Fault>(step(pool, relay, shop, &scan).await?.is_full) };
    let forget = || async {
        let mut tx = pool.begin().await?;
        let more = order::forget_requests(&mut tx, shop.idempotency_ttl_hours).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(more)
    };
    let period = Duration::from_millis(shop.reask_period_ms);
    tokio::join!(
        database::repeat("overdue orders", period, shutdown, failures, step),
        database::repeat("old idempotency keys", FORGET_PERIOD, shutdown, failures, forget),
    );
}

/// What a [`step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// About how many orders inventory was asked again.
    pub asked: usize,
    /// How many orders were given up.
    pub given_up: usize,
    /// Whether it took as many as it could, so that there may be more.
    pub is_full: bool,
}

/// Does what is overdue. Orders whose last event is still in the outbox only wait on, until they are given up.
///
/// # Errors
/// When the database fails; then nothing is done.
pub async fn step(pool: &Pool, relay: &Relay, shop: &Shop, scan: &Scan) -> Result<Step, Fault> {
    let mut tx = pool.begin().await?;
    let look = scan.begin(&mut tx).await?;
    let overdue = postpone(&mut tx, shop, look).await?;
    let taken = overdue.len();
    let last = overdue.iter().map(|order| order.overdue_at).max();
    let (given_up, owed): (Vec<_>, Vec<_>) = overdue.into_iter().partition(|order| order.is_given_up);
    let news: Vec<News> = given_up.iter().map(Overdue::unanswered).collect();
    let outcomes = order::advance(&mut tx, &news, shop.waits()).await?;
    let questions = questions(&mut tx, &owed).await?;
    outbox::enqueue(&mut tx, &questions).await?;
    tx.commit().await?;
    let is_full = taken == STEP as usize;
    scan.taken(last.filter(|_| is_full).unwrap_or(look.now));
    order::count_settled(&outcomes);
    if !questions.is_empty() {
        tracing::info!(orders.len = questions.len(), "inventory left orders unanswered; asking again");
        metrics::counter!("orders_reasked_total").increment(questions.len() as u64);
    }
    if !given_up.is_empty() {
        tracing::warn!(orders.len = given_up.len(), "inventory never answered orders; they are cancelled");
        metrics::counter!("orders_given_up_total").increment(given_up.len() as u64);
    }
    if taken > 0 {
        relay.wake();
    }
    Ok(Step { asked: questions.len(), given_up: given_up.len(), is_full })
}

/// An order for which nothing has happened for too long.
struct Overdue {
    id: OrderId,
    status: Status,
    reason: Option<String>,
    restock: bool,
    overdue_at: DateTime<Utc>,
    is_given_up: bool,
}

impl Overdue {
    fn unanswered(&self) -> News {
        News { order_id: self.id.clone(), what: What::Unanswered, message_id: None, trace: Trace::start() }
    }

    /// The event that inventory has not answered. Of a hold whose end it has not told it is asked by the order again, and
    /// answers how that stands now.
    fn question(&self, items: Vec<Item>) -> Option<serde_json::Result<Outgoing>> {
        let (order_id, trace) = (self.id.clone(), Trace::start());
        match self.status {
            Status::Pending | Status::Confirmed => Some(Outgoing::of(&OrderCreated { order_id, items }, trace)),
            Status::Refunded if self.restock => {
                let reason = self.reason.clone().unwrap_or_default();
                Some(Outgoing::of(&OrderRefunded { order_id, reason, restock: true }, trace))
            }
            // The goods of a refunded one stay away, and inventory has not said yet that it has sold them.
            Status::Completed | Status::Refunded => Some(Outgoing::of(&OrderCompleted { order_id, items }, trace)),
            Status::Cancelled => None,
        }
    }
}

/// The overdue orders; the next time is twice as far away, and not beyond the time at which an order is given up. Another
/// instance's are left to it.
///
/// An order is given up that was asked for at least [`LEAST_ASKS`] times, `GIVE_UP_AFTER_HOURS` after it took its status or its
/// hold has ended. The end of a hold is by inventory's clock; against hours it does not matter how far the clocks are apart.
async fn postpone(conn: &mut PgConnection, shop: &Shop, look: Look) -> Result<Vec<Overdue>, Fault> {
    let rows = sqlx::query!(
        r#"with overdue as (
               select
                   id,
                   overdue_at as was,
                   asks as was_asked,
                   case when status in ('pending', 'confirmed') then
                       greatest(updated_at, expires_at) + make_interval(secs => $4)
                   end as given_up_at
               from orders
               where overdue_at <= now()
                 and overdue_at >= coalesce($5::timestamptz, '-infinity')
               order by overdue_at
               limit $1
               for update skip locked
           )
           update orders
           set asks = asks + 1,
               overdue_at = least(
                   now() + make_interval(secs => least($2 * 2 ^ least(asks + 1, 16), $3)),
                   case when given_up_at > now() then given_up_at end
               )
           from overdue
           where orders.id = overdue.id
           returning orders.id, orders.status as "status: Status", orders.reason, orders.restock, was as "was!",
               coalesce(given_up_at <= now() and was_asked >= $6, false) as "is_given_up!""#,
        STEP,
        f64::from(shop.reask_after_seconds),
        LAST_PAUSE_SECONDS,
        Duration::from_hours(shop.give_up_after_hours.into()).as_secs_f64(),
        look.from,
        LEAST_ASKS,
    )
    .fetch_all(conn)
    .await?;
    let overdue = rows.into_iter().map(|row| {
        let id = OrderId::try_from(row.id).map_err(|error| Fault::Sticky(error.into()))?;
        let (status, reason, restock, overdue_at) = (row.status, row.reason, row.restock, row.was);
        Ok(Overdue { id, status, reason, restock, overdue_at, is_given_up: row.is_given_up })
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
