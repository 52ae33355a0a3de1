//! Takes all that is ready from a queue, has it handled as one batch, answers, and acknowledges.
//!
//! Each batch goes through [`decide`], [`answer`] and [`settle`]. The next batch is decided while the broker still
//! confirms the answers to this one, but batches are settled strictly in order, each after its own confirms: an
//! acknowledgement of `multiple` covers every delivery before it.
//!
//! The unacknowledged delivery is the outbox of its answer. Whatever dies between the steps, the delivery comes back,
//! the handler finds what it decided before, and answers how that stands now.

mod decide;
mod decider;
mod limits;
mod retries;
mod settle;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use database::{LockWait, bounded};
use futures::FutureExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::decide::{MAX_PAUSE, pauses};
use self::decider::Decider;
use self::retries::Retries;
use crate::progress::Unit;
use crate::session::{answered, both};
use crate::{Fault, Outgoing, Progress, Publisher};

pub use decide::decide;
pub use limits::Limits;
pub use retries::Retry;
pub use settle::{Acknowledges, Answered, answer, settle};

/// Says what becomes of messages.
pub trait Handler: Sync {
    /// Handles a batch, in the order of arrival, and returns one verdict a message. Its statements wait so long for `locks`.
    ///
    /// All effects must be committed when it returns. The same message may come again, alone or among others; it must have no
    /// effect a second time. When the batch takes too long, this is dropped at an `await`: it must leave nothing open.
    fn handle(&self, batch: &[Delivery], locks: LockWait) -> impl Future<Output = Result<Vec<Verdict>, Fault>> + Send;

    /// Whether a message could be handled now. No message is taken before.
    fn ready(&self) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with once these are published.
    Done(Vec<Outgoing>),
    /// It cannot be handled, for this reason.
    Dead(String),
    /// It cannot be handled now, and is tried again after others. Only the consumer says so.
    Retry(Retry),
}

/// A message that came back so often is taken alone: it may be what ends the sessions. Once or twice is what a restart of a
/// service or of the broker does to all.
const SUSPECT_AFTER: i64 = 3;

/// One batch is being decided and one answered while the one before waits for its confirms.
const BATCHES_IN_FLIGHT: usize = 2;

/// Works through a queue until `stop`, then finishes the batches it has begun.
///
/// Of several consumers of a queue, the one that began first gets all it can hold unacknowledged, and the next what is
/// beyond that: side by side they would only wait for each other's locks.
///
/// A message is taken once the handler is ready, and then one at a time, until one comes that has not come back again and
/// again. Whatever ended a session, the messages that were in hand come first, and so each of them is in hand alone: a message
/// that ends every session is counted towards the queue's delivery limit, and its neighbours are not.
///
/// # Errors
/// When the connection breaks, the broker ends the consumer, or a batch cannot be handled. What was not acknowledged comes
/// back.
pub async fn consume<H: Handler>(
    connection: &Connection,
    app_id: &str,
    queue: &'static str,
    limits: Limits,
    handler: &H,
    progress: &Progress,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let priority = Priority::of_now();
    let consumer = Consumer { connection, app_id, queue, priority, handler, progress, stop };
    if !wait_until_ready(handler, queue, limits.timeout(), stop).await {
        return Ok(());
    }
    consumer.work(limits.single(), Until::Unsuspected).await?;
    consumer.work(limits, Until::Stop).await
}

struct Consumer<'a, H> {
    connection: &'a Connection,
    app_id: &'a str,
    queue: &'static str,
    priority: Priority,
    handler: &'a H,
    progress: &'a Progress,
    stop: &'a CancellationToken,
}

/// The consumer that began first has the highest. In microseconds, because two instances are easily started within the
/// same millisecond, and then they would share.
#[derive(Debug, Clone, Copy)]
struct Priority(i64);

impl Priority {
    fn of_now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(now.as_micros()).map_or(i64::MIN, |micros| -micros))
    }

    fn argument(self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongLongInt(self.0));
        arguments
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// A message is handled that is not suspect: see [`SUSPECT_AFTER`].
    Unsuspected,
    /// The session is to end.
    Stop,
}

impl<'a, H: Handler> Consumer<'a, H> {
    async fn work(&self, limits: Limits, until: Until) -> anyhow::Result<()> {
        let Self { connection, app_id, queue, priority, stop, .. } = *self;
        let subscribing = subscribe(connection, app_id, queue, priority, limits);
        let Some(subscribed) = stop.run_until_cancelled(subscribing).await else { return Ok(()) };
        let (channel, deliveries) = subscribed?;
        let (free, publishers) = mpsc::channel(BATCHES_IN_FLIGHT);
        for _ in 0..BATCHES_IN_FLIGHT {
            let publisher = Publisher::open(connection, app_id).await?;
            free.send(publisher).await.map_err(|_closed| anyhow::anyhow!("no publisher is wanted"))?;
        }
        let (settle_next, unsettled) = mpsc::channel(BATCHES_IN_FLIGHT);
        let ending = stop.child_token();
        let retries = Retries::new(limits);
        let decider = Decider {
            consumer: self,
            limits,
            until,
            channel: &channel,
            publishers,
            settle_next,
            retries,
            ending: &ending,
        };
        let settling = self.settle_batches(&channel, unsettled, free, limits.retry_after(), &ending);
        both(&ending, decider.run(deliveries).boxed(), settling.boxed()).await
    }

    /// As the [`Decider`], it drops its ends of the channels when it returns.
    async fn settle_batches(
        &self,
        channel: &Channel,
        mut unsettled: mpsc::Receiver<(Answered<'a>, Unit)>,
        free: mpsc::Sender<Publisher<'a>>,
        retry_after: Duration,
        ending: &CancellationToken,
    ) -> anyhow::Result<()> {
        while let Some((batch, unit)) = unsettled.recv().await {
            let settling = settle(channel, self.queue, batch, self.progress);
            let settled = bounded(Duration::MAX, ending, settling).await;
            let (publisher, settled) = settled.context("the answers were not confirmed before the session ended")??;
            if settled == 0 {
                unit.end_unmoved(retry_after);
            } else {
                unit.done();
            }
            // Nobody needs it when no batch is decided any more.
            free.send(publisher).await.ok();
        }
        Ok(())
    }
}

/// Waits until the handler is ready; `false` if `stop` comes first.
async fn wait_until_ready<H: Handler>(
    handler: &H,
    queue: &'static str,
    timeout: Duration,
    stop: &CancellationToken,
) -> bool {
    let mut pauses = pauses();
    while !stop.is_cancelled() {
        let reason = match bounded(timeout, stop, handler.ready()).await {
            Some(Ok(())) => return true,
            Some(Err(fault)) => fault.to_string(),
            None => format!("no answer within {} s", timeout.as_secs()),
        };
        let pause = pauses.next().unwrap_or(MAX_PAUSE);
        tracing::warn!(queue, pause_ms = pause.as_millis(), error = reason, "no messages are taken yet");
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    false
}

async fn subscribe(
    connection: &Connection,
    app_id: &str,
    queue: &str,
    priority: Priority,
    limits: Limits,
) -> anyhow::Result<(Channel, lapin::Consumer)> {
    let channel = answered(connection, connection.create_channel()).await?;
    answered(connection, channel.basic_qos(limits.prefetch_messages, BasicQosOptions::default())).await?;
    let tag = format!("{app_id}.{queue}");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), tag.as_str().into(), options, priority.argument());
    let consumer =
        answered(connection, consuming).await.with_context(|| format!("cannot consume the queue {queue}"))?;
    Ok((channel, consumer))
}
