//! Events that no delivery causes: stored in the transaction that causes them, relayed after it.
//!
//! Each database that has one holds the table `outbox` of the migrations. Writers [`enqueue`] and, after the commit,
//! [`wake`](Relay::wake) the relay; it also looks by itself, so what a crash left behind goes out as well. It reads
//! state only, and recovery is its normal path.
//!
//! One relay at a time works on a database: it holds an advisory lock for the length of a step, and so the events of
//! one key leave in the order they were written.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use database::{Pool, Transaction, WORK_TIMEOUT, bounded};
use lapin::Connection;
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::session::is_blocked;
use crate::{Outgoing, Progress, Publisher, Unplaced};

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
const LAST_RETRY_SECONDS: i32 = 10;

/// The same for an event that the broker did not confirm in time. Longer, because it may be on its way yet, and the step that
/// waits for it holds up the others.
const FIRST_LATE_RETRY_SECONDS: i32 = 8;
const LAST_LATE_RETRY_SECONDS: i32 = 60;

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

/// How long the broker may take to confirm a step. Less than a transaction may be idle, because the step holds the lock
/// meanwhile. A broker that is short of memory is not waited for longer, either.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(8);

/// How the outbox is called in health.
const NAME: &str = "outbox";

/// Publishes what is in a database's outbox.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: Pool,
    period: Duration,
    wake: Arc<Notify>,
    scan: Arc<Mutex<Scan>>,
}

impl Relay {
    /// A relay that looks by itself once in each `period`.
    pub fn new(pool: Pool, period: Duration) -> Self {
        Self { pool, period, wake: Arc::default(), scan: Arc::default() }
    }

    /// Says that something was committed to the outbox.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Relays until `stop`, and leaves with a last look.
    ///
    /// # Errors
    /// When the connection to the broker breaks. A database that is away is waited for.
    pub async fn run(
        &self,
        connection: &Connection,
        app_id: &str,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut publisher = Publisher::open(connection, app_id).await?;
        let (mut failing, mut reopen_first, mut is_unanswered) = (None, false, false);
        loop {
            let last_look = stop.is_cancelled();
            // A broker short of memory or disk takes nothing, and a step would hold its lock for as long.
            if is_blocked(connection.status()) {
                if last_look {
                    return Ok(());
                }
                stop.run_until_cancelled(tokio::time::sleep(self.period)).await;
                continue;
            }
            if reopen_first {
                let reopening = bounded(Duration::MAX, stop, publisher.reopen()).await;
                reopening.context("no new channel before the service stopped")??;
                reopen_first = false;
            }
            let begun = Instant::now();
            let unit = failing.take().unwrap_or_else(|| progress.begin(NAME));
            match bounded(WORK_TIMEOUT, stop, self.step(&publisher, progress)).await {
                Some(Ok(step)) => {
                    reopen_first = step.refused + step.unconfirmed > 0;
                    // From a step that got no confirm until the broker answers for an event again, or another instance has
                    // placed what is left.
                    let is_answered = step.taken > step.unconfirmed;
                    is_unanswered = !is_answered && (step.unconfirmed > 0 || is_unanswered && self.scan().left);
                    if is_unanswered {
                        failing = Some(unit);
                    } else {
                        unit.done();
                    }
                    if step.more {
                        continue;
                    }
                    if step.taken > 0 {
                        stop.run_until_cancelled(tokio::time::sleep_until(begun + PACE)).await;
                    }
                }
                Some(Err(StepError::Database(error))) => {
                    tracing::warn!(%error, "the outbox cannot be read");
                    failing = Some(unit);
                }
                Some(Err(StepError::Broker(error))) => return Err(error.into()),
                None => {
                    tracing::warn!("a step of the outbox timed out");
                    // What it has published may be confirmed or returned yet, and would be taken for what the next one has.
                    (failing, reopen_first) = (Some(unit), true);
                }
            }
            if last_look {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified() => (),
                () = tokio::time::sleep(self.period) => (),
                () = stop.cancelled() => (),
            }
        }
    }

    /// One step: publishes the oldest events that are due, waits for their confirms and deletes them.
    ///
    /// Of the events of one key it takes the first only. The broker may refuse one event and take the next, and those of
    /// one key must arrive in order.
    ///
    /// # Errors
    /// When the database or the broker fails; what was not deleted is published again.
    pub async fn step(&self, publisher: &Publisher<'_>, progress: &Progress) -> Result<Step, StepError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
        let from = self.scan().begin(Instant::now());
        let rows = due(&mut tx, from).await?;
        let is_full = rows.len() == STEP as usize;
        let last = rows.last().map(|row| row.id);
        let mut keys = HashSet::with_capacity(rows.len());
        let (first, later): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| keys.insert(row.key.clone()));
        let done = later.first().map(|row| row.id - 1).or(last);
        if first.is_empty() {
            self.end(tx, from, done, false).await?;
            return Ok(Step::default());
        }
        // What is published by a transaction that may not write could not be deleted, and would be published in each step.
        database::refuse_read_only(&mut tx).await?;
        let (ids, messages): (Vec<i64>, Vec<Outgoing>) = first.into_iter().map(|row| (row.id, row.into())).unzip();
        let Unplaced { refused, returned, unconfirmed } = publisher.publish_within(&messages, CONFIRM_TIMEOUT).await?;
        let (mut kept, mut late) = (Vec::new(), Vec::new());
        for (at, (id, message)) in ids.iter().zip(&messages).enumerate() {
            let is_returned = returned.contains(&message.message_id.to_string());
            if is_returned {
                progress.undelivered(&message.exchange, &message.routing_key);
            }
            if unconfirmed.contains(&at) {
                late.push(*id);
            } else if is_returned || refused.contains(&at) {
                kept.push(*id);
            }
        }
        let (taken, placed) = (ids.len(), ids.len() - kept.len() - late.len());
        let (unheard, refused, unconfirmed) = (returned.len(), refused.len(), late.len());
        if placed < taken {
            tracing::warn!(unheard, refused, unconfirmed, "events stay in the outbox: the broker has not placed them");
        }
        postpone(&mut tx, &kept, FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS).await?;
        postpone(&mut tx, &late, FIRST_LATE_RETRY_SECONDS, LAST_LATE_RETRY_SECONDS).await?;
        kept.append(&mut late);
        delete(&mut tx, &ids, &kept).await?;
        let more = is_full || !later.is_empty();
        let leaves_some = !kept.is_empty() || more && self.scan().has_passed(done);
        self.end(tx, from, done, leaves_some).await?;
        metrics::counter!("outbox_relayed_total").increment(placed as u64);
        Ok(Step { taken, placed, refused, unconfirmed, more })
    }

    /// Commits a step that read the outbox from the id `from` on and is done with the events up to the id `done`. Perhaps it
    /// leaves some that no later step would find without a full look.
    async fn end(&self, mut tx: Transaction, from: i64, done: Option<i64>, leaves_some: bool) -> sqlx::Result<()> {
        // Only a full look can tell that none is left.
        let left = if from == 0 { Some(leaves_some || postponed(&mut tx).await?) } else { leaves_some.then_some(true) };
        tx.commit().await?;
        self.scan().found(done, left);
        Ok(())
    }

    fn scan(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step of the relay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// How many events it published.
    pub taken: usize,
    /// How many of them the broker has placed; the others stay in the outbox.
    pub placed: usize,
    /// How many the broker refused, because a queue is full or has no leader.
    pub refused: usize,
    /// How many it did not answer for in time, because the link is slow or a queue has no quorum.
    pub unconfirmed: usize,
    /// Whether it left events that are due.
    pub more: bool,
}

/// The events that are due from an id on, oldest first, but none of a key of which an event before that id is left.
async fn due(conn: &mut PgConnection, from: i64) -> sqlx::Result<Vec<Row>> {
    // `offset` keeps this from being planned as a join: planned on an empty outbox, as it mostly is, a join reads all
    // of the outbox for each event.
    sqlx::query_as(
        "select id, message_id, exchange, routing_key, event, key, body, mandatory, traceparent
         from outbox
         where id >= $2
           and not_before <= now()
           and not exists (
             select from outbox as waiting
             where waiting.key = outbox.key and (waiting.not_before > now() or waiting.id < $2)
             offset 0
           )
         order by id
         limit $1",
    )
    .bind(STEP)
    .bind(from)
    .fetch_all(conn)
    .await
}

/// Whether there are events that wait for their next try.
async fn postponed(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from outbox where not_before > now())").fetch_one(conn).await
}

/// Has events wait for their next try, which is `first` seconds away, doubling up to `last` with each that they had.
async fn postpone(conn: &mut PgConnection, ids: &[i64], first: i32, last: i32) -> sqlx::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update outbox
         set attempts = attempts + 1,
             not_before = now() + make_interval(secs => least($2 * 2 ^ least(attempts, 16), $3))
         where id = any($1)",
    )
    .bind(ids)
    .bind(first)
    .bind(last)
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the events that were placed: all but those that are kept.
async fn delete(conn: &mut PgConnection, ids: &[i64], kept: &[i64]) -> sqlx::Result<()> {
    sqlx::query("delete from outbox where id = any($1) and id <> all($2)").bind(ids).bind(kept).execute(conn).await?;
    Ok(())
}

/// From which id on the outbox is read.
///
/// Deleted events stay in the index for as long as some transaction is open that could still see them, a dump of the
/// database for example, and a step that begins at the first id walks over all of them: 320 ms after a million events. So a
/// step begins where the steps of some time ago ended. Ids are given out before they are committed: whatever takes longer
/// to commit than that is found by a full look, which is taken once in a while, and always while events
/// before that id are left.
#[derive(Debug, Default)]
struct Scan {
    from: i64,
    /// When steps ended with which id; those that are old enough move `from`.
    ended: VecDeque<(Instant, i64)>,
    full_look: Option<Instant>,
    /// Whether events before `from` are left: they are postponed, or a full look did not take all.
    left: bool,
}

impl Scan {
    const COMMIT_TIME: Duration = Duration::from_secs(5);
    const FULL_LOOK_PERIOD: Duration = Duration::from_secs(30);
    /// The most ends that are remembered: one in 50 ms.
    const MAX_ENDED: usize = 100;

    /// From which id on the next step looks.
    fn begin(&mut self, now: Instant) -> i64 {
        while let Some((at, id)) = self.ended.front()
            && now.duration_since(*at) >= Self::COMMIT_TIME
        {
            self.from = id + 1;
            self.ended.pop_front();
        }
        let full_look_due = self.full_look.is_none_or(|at| now.duration_since(at) >= Self::FULL_LOOK_PERIOD);
        if full_look_due || self.left {
            self.full_look = Some(now);
            return 0;
        }
        self.from
    }

    /// Whether the next id after `done` is before those that a step reads which is no full look.
    fn has_passed(&self, done: Option<i64>) -> bool {
        done.is_some_and(|done| done + 1 < self.from)
    }

    /// A step is done with the events up to the id `done`, and perhaps learned whether some are left before `from`.
    fn found(&mut self, done: Option<i64>, left: Option<bool>) {
        self.left = left.unwrap_or(self.left);
        let now = Instant::now();
        let spacing = Self::COMMIT_TIME / Self::MAX_ENDED as u32;
        let is_spaced = self.ended.back().is_none_or(|(at, _)| now.duration_since(*at) >= spacing);
        if let Some(done) = done
            && is_spaced
        {
            self.ended.push_back((now, done));
        }
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The outbox could not be read or written.
    #[error("the outbox fails")]
    Database(#[from] sqlx::Error),
    /// The events could not be published.
    #[error("cannot publish")]
    Broker(#[from] lapin::Error),
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
