use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context;
use database::{LockWait, bounded};
use futures::StreamExt;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicCancelOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::decide::times_returned;
use super::retries::{Retries, failed_tries};
use super::{Acknowledges, Answered, Consumer, Handler, Limits, SUSPECT_AFTER, Until, Verdict, answer, decide};
use crate::Publisher;
use crate::progress::Unit;

/// Decides the batches of a consumer and publishes their answers.
///
/// Its ends of the two channels are dropped when it ends, however it does: the other side waits for nobody then.
pub(super) struct Decider<'a, 's, H> {
    pub(super) consumer: &'s Consumer<'a, H>,
    pub(super) limits: Limits,
    pub(super) until: Until,
    pub(super) channel: &'s Channel,
    pub(super) publishers: mpsc::Receiver<Publisher<'a>>,
    pub(super) settle_next: mpsc::Sender<(Answered<'a>, Unit)>,
    pub(super) retries: Retries,
    pub(super) ending: &'s CancellationToken,
}

impl<H: Handler> Decider<'_, '_, H> {
    pub(super) async fn run(mut self, deliveries: lapin::Consumer) -> anyhow::Result<()> {
        let tag = deliveries.tag();
        let mut batches = deliveries.ready_chunks(self.limits.batch_max_messages.into());
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() {
            let Some(batch) = self.ending.run_until_cancelled(batches.next()).await else { break };
            let ended = || format!("the broker ended the consumer of {}", self.consumer.queue);
            let batch: Vec<Delivery> = batch.with_context(ended)?.into_iter().collect::<lapin::Result<_>>()?;
            let is_last =
                self.until == Until::Unsuspected && batch.iter().any(|message| times_returned(message) < SUSPECT_AFTER);
            flow = self.take(batch).await?;
            if is_last {
                break;
            }
        }
        // lapin waits for nothing here, not even for a broker that takes nothing.
        Ok(self.channel.basic_cancel(tag, BasicCancelOptions { nowait: true }).await?)
    }

    /// Takes a batch that has come in. Breaks when the session is to end.
    ///
    /// Messages that come from `Q.retry` are decided after the others, and wait for locks only briefly: it may be that none of
    /// them is locked any more, or that all are.
    async fn take(&mut self, batch: Vec<Delivery>) -> anyhow::Result<ControlFlow<()>> {
        let (fresh, retried): (Vec<_>, Vec<_>) = batch.into_iter().partition(|message| failed_tries(message).is_none());
        // The last of the fresh ones may have come after one that is retried.
        let acknowledges = if retried.is_empty() { Acknowledges::UpTo } else { Acknowledges::Each };
        let mut flow = ControlFlow::Continue(());
        if !fresh.is_empty() {
            flow = self.handle(fresh, self.retries.lock_wait(), acknowledges).await?;
        }
        if !retried.is_empty() && flow.is_continue() {
            flow = self.handle(retried, LockWait::Brief, Acknowledges::UpTo).await?;
        }
        Ok(flow)
    }

    /// Decides messages, publishes their answers and has them settled. Breaks when the session is to end.
    async fn handle(
        &mut self,
        part: Vec<Delivery>,
        locks: LockWait,
        acknowledges: Acknowledges,
    ) -> anyhow::Result<ControlFlow<()>> {
        let unit = self.consumer.progress.begin(self.consumer.queue);
        let Consumer { handler, queue, .. } = *self.consumer;
        let is_open = || self.channel.status().connected();
        let verdicts = decide(handler, queue, &part, locks, self.limits, is_open, self.ending).await?;
        if verdicts.iter().any(|verdict| matches!(verdict, Some(Verdict::Done(_)))) {
            self.retries.passed();
        }
        let decide = |(message, verdict): (Delivery, Option<Verdict>)| {
            let verdict = verdict.unwrap_or_else(|| self.retries.verdict(&message));
            (message, verdict)
        };
        let decided = part.into_iter().zip(verdicts).map(decide).collect();
        let Some(publisher) = self.publishers.recv().await else { return Ok(ControlFlow::Break(())) };
        // A broker that says that it is short of memory or disk is waited for as long as it says so.
        let answering = answer(publisher, queue, decided, acknowledges);
        let answered = bounded(Duration::MAX, self.ending, answering).await;
        let answered = answered.context("the answers were not published before the session ended")??;
        let sent = self.settle_next.send((answered, unit)).await;
        Ok(if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}
