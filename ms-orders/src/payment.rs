//! Payments: each is made some time after its order's stock is held, once, and given back once if the order does not
//! come about or is refunded.
//!
//! A payment is a row with the time of its next attempt. Whoever takes it moves that time on before he asks the
//! [`Provider`], so that after a crash it is asked again, later each time and under the same key. The provider knows what
//! it did under a key, and does nothing twice. Any number of instances share the work.
//!
//! ```text
//! due ──paid──▶ paid ──────────────────refunded──▶ returning ──▶ returned
//!  ├──declined──▶ declined                             ▲
//!  └──cancelled──▶ cancelled, if nobody has tried it; ─┘ otherwise
//! ```

mod provider;

use std::time::Duration;

use ::events::OrderId;
use chrono::{DateTime, Utc};
use database::{Failures, LockWait, Pool, Transaction};
use messaging::outbox::Relay;
use messaging::{Fault, Trace};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::config::Shop;
use crate::order::{self, News, What};
use crate::scan::Scan;

pub use provider::{Attempt, Key, Provider};

/// The most payments in one step.
const STEP: i64 = 250;

/// The pause after the first attempt, doubling to the last, in seconds.
const FIRST_PAUSE_SECONDS: f64 = 1.0;
const LAST_PAUSE_SECONDS: f64 = 60.0;

/// What a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payment_status", rename_all = "snake_case")]
pub enum Status {
    /// To be made.
    Due,
    /// Made.
    Paid,
    /// Refused by the provider.
    Declined,
    /// Never tried, because its order was cancelled before.
    Cancelled,
    /// To be given back, or kept from being made.
    Returning,
    /// Given back, or never made.
    Returned,
}

/// The payment of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The order.
    pub order_id: String,
    /// What it is.
    pub status: Status,
    /// How much.
    pub amount: Decimal,
    /// How often it was tried to make it, or to give it back.
    pub attempts: i32,
    /// When it is tried next; `None` where there is nothing left to do.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it took its status.
    pub updated_at: DateTime<Utc>,
}

/// What becomes of a payment when its order takes a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It becomes due.
    Due,
    /// It was made.
    Paid,
    /// It was declined.
    Declined,
    /// It is not to be made, and given back if it was.
    Cancel,
    /// It is given back.
    Return,
}

impl Turn {
    /// How SQL calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Paid => "paid",
            Self::Declined => "declined",
            Self::Cancel => "cancel",
            Self::Return => "return",
        }
    }
}

/// The payments of orders.
///
/// # Errors
/// Those of the database.
pub async fn of(conn: &mut PgConnection, order_ids: &[String]) -> sqlx::Result<Vec<Payment>> {
    sqlx::query_as!(
        Payment,
        r#"select order_id, status as "status: Status", amount, attempts, next_attempt_at, updated_at
           from payments
           where order_id = any($1)"#,
        order_ids,
    )
    .fetch_all(conn)
    .await
}

/// Makes and returns payments until `shutdown`, looking for them once in each period.
pub async fn run(pool: &Pool, relay: &Relay, shop: &Shop, failures: &Failures, shutdown: &CancellationToken) {
    let (provider, scan) = (Provider::new(pool.clone()), Scan::default());
    let step = || async {
        let tried = step(pool, &provider, shop, &scan).await?;
        if tried > 0 {
            relay.wake();
        }
        Ok::<_, Fault>(tried == STEP as usize)
    };
    let period = Duration::from_millis(shop.payment_period_ms);
    database::repeat("payments", period, shutdown, failures, step).await;
}

/// Tries the payments that are due, and tells how many there were. A constant number of statements.
///
/// # Errors
/// When the database or the provider fails; what was taken is tried again later.
pub async fn step(pool: &Pool, provider: &Provider, shop: &Shop, scan: &Scan) -> Result<usize, Fault> {
    let taken = take(pool, scan).await?;
    if taken.is_empty() {
        return Ok(0);
    }
    let (returning, due): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(status, _)| *status == Status::Returning);
    let tried = returning.len() + due.len();
    let charged = charge(pool, provider, &keys(due), shop).await;
    // What hinders those who pay must not hinder those who are paid back.
    give_back(pool, provider, &keys(returning)).await.and(charged)?;
    metrics::counter!("payments_tried_total").increment(tried as u64);
    Ok(tried)
}

/// Has payments made, and brings their orders on: together, or each alone where one of them is locked. It could be locked by
/// somebody who forgets it, and is due again with the same others.
async fn charge(pool: &Pool, provider: &Provider, due: &[Key], shop: &Shop) -> Result<(), Fault> {
    let charged = provider.charge(due).await?;
    let mut news = Vec::with_capacity(charged.len());
    for (order_id, attempt) in charged {
        let what = match attempt {
            Attempt::Paid => What::Paid,
            Attempt::Declined => What::Declined,
            Attempt::NotYet => continue,
        };
        let order_id = OrderId::try_from(order_id).map_err(|error| Fault::Sticky(error.into()))?;
        news.push(News { order_id, what, message_id: None, trace: Trace::start() });
    }
    if news.is_empty() {
        return Ok(());
    }
    match advance(pool.begin().await?, &news, shop).await {
        Err(fault @ (Fault::Locked(_) | Fault::TimedOut(_) | Fault::Sticky(_))) if news.len() > 1 => {
            tracing::warn!(orders.len = news.len(), error = %fault, "paid orders cannot be brought on together; each alone");
            let mut advanced = Ok(());
            for news in news.chunks(1) {
                advanced = advanced.and(advance_alone(pool, news, shop).await);
            }
            advanced
        }
        advanced => advanced,
    }
}

/// Brings one order on. It waits for no lock for long, so that a step has time for all its orders, however many are locked.
async fn advance_alone(pool: &Pool, news: &[News], shop: &Shop) -> Result<(), Fault> {
    advance(pool.begin_with(LockWait::Brief).await?, news, shop).await
}

async fn advance(mut tx: Transaction, news: &[News], shop: &Shop) -> Result<(), Fault> {
    let outcomes = order::advance(&mut tx, news, shop.waits()).await?;
    tx.commit().await?;
    order::count_settled(&outcomes);
    Ok(())
}

/// Has payments given back. By itself, so that those who pay do not wait for those who are paid back.
async fn give_back(pool: &Pool, provider: &Provider, returning: &[Key]) -> Result<(), Fault> {
    let returned = provider.give_back(returning).await?;
    if returned.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "update payments
         set status = 'returned', next_attempt_at = null, updated_at = now()
         where order_id = any($1) and status = 'returning'",
        &returned,
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

fn keys(taken: Vec<(Status, Key)>) -> Vec<Key> {
    taken.into_iter().map(|(_, key)| key).collect()
}

/// Takes payments that are due: their next attempt is put off, so that nobody else takes them meanwhile.
async fn take(pool: &Pool, scan: &Scan) -> sqlx::Result<Vec<(Status, Key)>> {
    let mut tx = pool.begin().await?;
    let look = scan.begin(&mut tx).await?;
    let rows = sqlx::query!(
        r#"with due as (
               select order_id, next_attempt_at as due_at
               from payments
               where status in ('due', 'returning')
                 and next_attempt_at <= now()
                 and next_attempt_at >= coalesce($4::timestamptz, '-infinity')
               order by next_attempt_at
               limit $1
               for update skip locked
           )
           update payments
           set attempts = attempts + 1,
               next_attempt_at = now() + make_interval(secs => least($2 * 2 ^ least(attempts, 16), $3))
           from due
           where payments.order_id = due.order_id
           returning payments.order_id, payments.status as "status: Status", payments.amount, payments.reference,
               due_at as "due_at!""#,
        STEP,
        FIRST_PAUSE_SECONDS,
        LAST_PAUSE_SECONDS,
        look.from,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let last = rows.iter().map(|row| row.due_at).max();
    scan.taken(last.filter(|_| rows.len() == STEP as usize).unwrap_or(look.now));
    let key = |order_id, amount, reference: Option<String>| Key {
        order_id,
        amount,
        reference: reference.unwrap_or_default(),
    };
    Ok(rows.into_iter().map(|row| (row.status, key(row.order_id, row.amount, row.reference))).collect())
}
