//! Takes all that is ready from a queue, has it handled as one batch, answers, and acknowledges.
//!
//! Each batch goes through [`decide`], [`answer`] and [`settle`]. The next batch is decided while the broker still
//! confirms the answers to this one, but batches are settled strictly in order, each after its own confirms: an
//! acknowledgement of `multiple` covers every delivery before it.
//!
//! The unacknowledged delivery is the outbox of its answer. Whatever dies between the steps, the delivery comes back,
//! the handler finds what it decided before, and the answer goes out again.

mod decide;
mod settle;

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::answered;
use crate::{Fault, Outgoing, Publisher};

pub use decide::decide;
pub use settle::{Answered, answer, settle};

/// Says what becomes of messages.
pub trait Handler: Sync {
    /// Handles a batch, in the order of arrival, and returns one verdict a message.
    ///
    /// All effects must be committed when it returns. The same message may come again, alone or among others; it then
    /// gets the same verdict.
    fn handle(&self, batch: &[Delivery]) -> impl Future<Output = Result<Vec<Verdict>, Fault>> + Send;
}

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with once these are published.
    Done(Vec<Outgoing>),
    /// It cannot be handled, for this reason.
    Dead(String),
}

/// How much a consumer takes at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most unacknowledged messages the broker hands over.
    pub prefetch: u16,
    /// The most messages in one batch.
    pub batch: usize,
}

/// One batch is being decided and one answered while the one before waits for its confirms.
const BATCHES_IN_FLIGHT: usize = 2;

/// Works through a queue until `shutdown`, then finishes the batches it has begun.
///
/// Of several consumers of a queue, the one that began first gets all it can hold unacknowledged, and the next what is
/// beyond that: side by side they would only wait for each other's locks.
///
/// The first message is taken alone. Whatever ends a session before a message is settled ends it with that message in
/// hand and no other, so that only the culprit's deliveries are counted towards the queue's delivery limit.
///
/// # Errors
/// When the connection breaks or the broker ends the consumer. What was not acknowledged comes back.
pub async fn consume<H: Handler>(
    connection: &Connection,
    app_id: &str,
    queue: &'static str,
    limits: Limits,
    handler: &H,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let priority = Priority::of_now();
    let consumer = Consumer { connection, app_id, queue, priority, handler, shutdown };
    consumer.work(Limits { prefetch: 1, batch: 1 }, Until::Settled).await?;
    consumer.work(limits, Until::Shutdown).await
}

struct Consumer<'a, H> {
    connection: &'a Connection,
    app_id: &'a str,
    queue: &'static str,
    priority: Priority,
    handler: &'a H,
    shutdown: &'a CancellationToken,
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
    /// One batch is settled.
    Settled,
    /// The service is told to stop.
    Shutdown,
}

impl<H: Handler> Consumer<'_, H> {
    async fn work(&self, limits: Limits, until: Until) -> anyhow::Result<()> {
        let Self { connection, app_id, queue, priority, handler, shutdown } = *self;
        let subscribing = subscribe(connection, app_id, queue, priority, limits);
        let Some(subscribed) = shutdown.run_until_cancelled(subscribing).await else { return Ok(()) };
        let (channel, deliveries) = subscribed?;
        let (free, mut publishers) = mpsc::channel(BATCHES_IN_FLIGHT);
        for _ in 0..BATCHES_IN_FLIGHT {
            free.send(Publisher::open(connection, app_id).await?).await?;
        }
        let (settle_next, mut unsettled) = mpsc::channel::<Answered>(BATCHES_IN_FLIGHT);

        let deciding = async {
            let tag = deliveries.tag();
            let mut batches = deliveries.ready_chunks(limits.batch);
            let mut is_done = false;
            while !is_done {
                let Some(batch) = shutdown.run_until_cancelled(batches.next()).await else { break };
                let batch = batch.with_context(|| format!("the broker ended the consumer of {queue}"))?;
                let batch: Vec<Delivery> = batch.into_iter().collect::<lapin::Result<_>>()?;
                let wanted = || channel.status().connected() && !shutdown.is_cancelled();
                let verdicts = decide(handler, queue, &batch, wanted).await?;
                let Some(publisher) = publishers.recv().await else { break };
                settle_next.send(answer(publisher, queue, batch, verdicts).await?).await?;
                is_done = until == Until::Settled;
            }
            drop(settle_next);
            Ok(channel.basic_cancel(tag, BasicCancelOptions { nowait: true }).await?)
        };
        let settling = async {
            while let Some(batch) = unsettled.recv().await {
                let publisher = settle(&channel, queue, batch).await?;
                free.send(publisher).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(deciding, settling).map(|_| ())
    }
}

async fn subscribe(
    connection: &Connection,
    app_id: &str,
    queue: &str,
    priority: Priority,
    limits: Limits,
) -> anyhow::Result<(Channel, lapin::Consumer)> {
    let channel = answered(connection.create_channel()).await?;
    answered(channel.basic_qos(limits.prefetch, BasicQosOptions::default())).await?;
    let tag = format!("{app_id}.{queue}");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), tag.as_str().into(), options, priority.argument());
    let consumer = answered(consuming).await.with_context(|| format!("cannot consume the queue {queue}"))?;
    Ok((channel, consumer))
}
