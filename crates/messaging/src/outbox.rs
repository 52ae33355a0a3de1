//! Events that no delivery causes: stored in the transaction that causes them, relayed after it.
//!
//! Each database that has one holds the table `outbox` of the migrations. Writers [`enqueue`] and, after the commit,
//! [`wake`](Relay::wake) the relay; it also looks by itself, so what a crash left behind goes out as well. It reads
//! state only, and recovery is its normal path.
//!
//! One relay at a time works on a database: it holds an advisory lock for the length of a step, and so the events of
//! one key leave in the order they were written.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Outgoing, Publisher, Unplaced};

/// The most events in one step.
const STEP: i64 = 500;

/// The least time between the beginnings of two steps, unless the first was full. The first event after a pause leaves
/// at once; where one follows the other they leave in groups, because a step costs this service, the database, the broker
/// and everyone behind it about the same whether it has three events or thirty.
const PACE: Duration = Duration::from_millis(10);

/// The advisory lock of the relay, the same in every database: "outbox" in ASCII.
const LOCK: i64 = 0x6f75_7462_6f78;

/// How long an event that the broker does not place waits for its next try, doubling from the first to the second.
const FIRST_RETRY_SECONDS: i32 = 1;
const LAST_RETRY_SECONDS: i32 = 60;

/// Stores events to be published after the transaction commits. One statement, however many.
///
/// # Errors
/// Those of the database.
pub async fn enqueue(conn: &mut PgConnection, messages: &[Outgoing]) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($get:expr) => {
            messages.iter().map($get).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "insert into outbox (message_id, exchange, routing_key, event, key, body, mandatory, traceparent)
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bool[], $8::text[])",
    )
    .bind(column!(|m| m.message_id))
    .bind(column!(|m| m.exchange.as_ref()))
    .bind(column!(|m| m.routing_key.as_ref()))
    .bind(column!(|m| m.event.as_ref()))
    .bind(column!(|m| m.key.as_str()))
    .bind(column!(|m| m.body.as_slice()))
    .bind(column!(|m| m.mandatory))
    .bind(column!(|m| m.traceparent.as_str()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of the keys that have events in the outbox.
///
/// # Errors
/// Those of the database.
pub async fn waiting(conn: &mut PgConnection, keys: &[String]) -> sqlx::Result<HashSet<String>> {
    let waiting = sqlx::query_scalar("select key from outbox where key = any($1)").bind(keys).fetch_all(conn).await?;
    Ok(waiting.into_iter().collect())
}

/// Publishes what is in a database's outbox.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: PgPool,
    period: Duration,
    wake: Arc<Notify>,
}

impl Relay {
    /// A relay that looks by itself once in each `period`.
    pub fn new(pool: PgPool, period: Duration) -> Self {
        Self { pool, period, wake: Arc::default() }
    }

    /// Says that something was committed to the outbox.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Relays until `shutdown`, and leaves with a last look.
    ///
    /// # Errors
    /// When the connection to the broker breaks. A database that is away is waited for.
    pub async fn run(&self, connection: &Connection, app_id: &str, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let publisher = Publisher::open(connection, app_id).await?;
        loop {
            let last_look = shutdown.is_cancelled();
            // A broker short of memory or disk takes nothing, and a step would hold its lock for as long.
            if connection.status().blocked() && !last_look {
                shutdown.run_until_cancelled(tokio::time::sleep(self.period)).await;
                continue;
            }
            let begun = Instant::now();
            match self.step(&publisher).await {
                Ok(relayed) if relayed == STEP as usize => continue,
                Ok(0) => (),
                Ok(_) => {
                    shutdown.run_until_cancelled(tokio::time::sleep_until(begun + PACE)).await;
                }
                Err(StepError::Database(error)) => tracing::warn!(%error, "the outbox cannot be read"),
                Err(StepError::Broker(error)) => return Err(error.into()),
            }
            if last_look {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified() => (),
                () = tokio::time::sleep(self.period) => (),
                () = shutdown.cancelled() => (),
            }
        }
    }

    /// One step: publishes the oldest events that are due, waits for their confirms and deletes them. Tells how many
    /// were looked at.
    ///
    /// # Errors
    /// When the database or the broker fails; what was not deleted is published again.
    pub async fn step(&self, publisher: &Publisher) -> Result<usize, StepError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
        // `offset` keeps this from being planned as a join: planned on an empty outbox, as it mostly is, a join reads all
        // of the outbox for each event.
        let rows: Vec<Row> = sqlx::query_as(
            "select id, message_id, exchange, routing_key, event, key, body, mandatory, traceparent
             from outbox
             where not_before <= now()
               and not exists (
                 select from outbox as waiting
                 where waiting.key = outbox.key and waiting.not_before > now()
                 offset 0
               )
             order by id
             limit $1",
        )
        .bind(STEP)
        .fetch_all(&mut *tx)
        .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let (ids, messages): (Vec<i64>, Vec<Outgoing>) = rows.into_iter().map(|row| (row.id, row.into())).unzip();
        let Unplaced { refused, returned } = publisher.publish(&messages).await?.wait().await?;
        let is_unplaced =
            |at: usize, message: &Outgoing| refused.contains(&at) || returned.contains(&message.message_id.to_string());
        let placed = ids.iter().zip(&messages).enumerate();
        let kept: Vec<i64> =
            placed.filter(|(at, (_, message))| is_unplaced(*at, message)).map(|(_, (id, _))| *id).collect();
        if !kept.is_empty() {
            let (unheard, refused) = (returned.len(), refused.len());
            tracing::warn!(unheard, refused, "events stay in the outbox: nobody listens, or a queue is full");
        }
        sqlx::query("delete from outbox where id = any($1) and id <> all($2)")
            .bind(&ids)
            .bind(&kept)
            .execute(&mut *tx)
            .await?;
        if !kept.is_empty() {
            sqlx::query(
                "update outbox
                 set attempts = attempts + 1,
                     not_before = now() + make_interval(secs => least($2 * 2 ^ least(attempts, 16), $3))
                 where id = any($1)",
            )
            .bind(&kept)
            .bind(FIRST_RETRY_SECONDS)
            .bind(LAST_RETRY_SECONDS)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        metrics::counter!("outbox_relayed_total").increment((ids.len() - kept.len()) as u64);
        Ok(ids.len())
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The outbox could not be read or written.
    #[error("the outbox fails")]
    Database(#[from] sqlx::Error),
    /// The events could not be published.
    #[error(transparent)]
    Broker(#[from] crate::PublishError),
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    message_id: Uuid,
    exchange: String,
    routing_key: String,
    event: String,
    key: String,
    body: Vec<u8>,
    mandatory: bool,
    traceparent: String,
}

impl From<Row> for Outgoing {
    fn from(row: Row) -> Self {
        Self {
            message_id: row.message_id,
            exchange: row.exchange.into(),
            routing_key: row.routing_key.into(),
            event: row.event.into(),
            key: row.key,
            body: row.body,
            mandatory: row.mandatory,
            traceparent: row.traceparent,
        }
    }
}
