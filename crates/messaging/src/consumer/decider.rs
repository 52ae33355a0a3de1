use std::ops::ControlFlow;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use database::bounded;
use futures::StreamExt;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicRejectOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::decide::{may_go_back, times_returned};
use super::held::Held;
use super::{Answered, Consumer, Handler, Limits, SUSPECT_AFTER, Until, Verdict, answer, decide};
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
    pub(super) settle_next: mpsc::Sender<(Answered<'a>, Arc<Unit>)>,
    pub(super) held: Held,
    pub(super) ending: &'s CancellationToken,
}

impl<H: Handler> Decider<'_, '_, H> {
    pub(super) async fn run(mut self, deliveries: lapin::Consumer) -> anyhow::Result<()> {
        let tag = deliveries.tag();
        let mut batches = deliveries.ready_chunks(self.limits.batch_max_messages.into());
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() {
            let next = async {
                tokio::select! {
                    biased;
                    batch = batches.next() => Some(batch),
                    () = self.held.wait() => None,
                }
            };
            let Some(next) = self.ending.run_until_cancelled(next).await else { break };
            if let Some(batch) = next {
                let ended = || format!("the broker ended the consumer of {}", self.consumer.queue);
                let batch: Vec<Delivery> = batch.with_context(ended)?.into_iter().collect::<lapin::Result<_>>()?;
                flow = self.take(batch).await?;
            }
            if flow.is_continue() && self.held.is_due() {
                flow = self.try_held().await?;
            }
        }
        // lapin waits for nothing here, not even for a broker that takes nothing.
        Ok(self.channel.basic_cancel(tag, BasicCancelOptions { nowait: true }).await?)
    }

    /// Takes a batch that has come in. Breaks when it was the last.
    async fn take(&mut self, batch: Vec<Delivery>) -> anyhow::Result<ControlFlow<()>> {
        let unit = Arc::new(self.consumer.progress.begin(self.consumer.queue));
        let is_last =
            self.until == Until::Unsuspected && batch.iter().any(|message| times_returned(message) < SUSPECT_AFTER);
        let verdicts = self.decide(&batch).await?;
        let mut decided = Vec::with_capacity(batch.len());
        for (delivery, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                Some(verdict) => decided.push((delivery, verdict)),
                None if self.until == Until::Stop => self.held.hold(delivery, unit.clone()),
                // While messages are taken one at a time, one that is held would keep out all others.
                None if may_go_back(&delivery) => {
                    self.channel.basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue: true }).await?;
                    return Ok(ControlFlow::Break(()));
                }
                None => decided.push((delivery, stays_locked())),
            }
        }
        let flow = if decided.is_empty() { ControlFlow::Continue(()) } else { self.answer(decided, unit).await? };
        Ok(if is_last { ControlFlow::Break(()) } else { flow })
    }

    /// Tries messages that are held, one after the other, until one has to wait for longer.
    async fn try_held(&mut self) -> anyhow::Result<ControlFlow<()>> {
        while !self.ending.is_cancelled()
            && let Some(message) = self.held.take()
        {
            let verdict = self.decide(slice::from_ref(&message.delivery)).await?.pop().flatten();
            if let Some(verdict) = verdict {
                let flow = self.answer(vec![(message.delivery, verdict)], message.unit).await?;
                if flow.is_break() {
                    return Ok(flow);
                }
            } else {
                let Some(given_up) = self.held.hold_longer(message) else { break };
                return self.answer(vec![(given_up.delivery, stays_locked())], given_up.unit).await;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn decide(&mut self, batch: &[Delivery]) -> anyhow::Result<Vec<Option<Verdict>>> {
        let Consumer { handler, queue, .. } = *self.consumer;
        let is_open = || self.channel.status().connected();
        let verdicts = decide(handler, queue, batch, self.limits, is_open, self.ending).await?;
        if verdicts.iter().flatten().any(|verdict| matches!(verdict, Verdict::Done(_))) {
            self.held.passed();
        }
        Ok(verdicts)
    }

    /// Publishes the answers of messages and has them settled. Breaks when the session is to end.
    async fn answer(&mut self, decided: Vec<(Delivery, Verdict)>, unit: Arc<Unit>) -> anyhow::Result<ControlFlow<()>> {
        let Some(publisher) = self.publishers.recv().await else { return Ok(ControlFlow::Break(())) };
        // A broker that says that it is short of memory or disk is waited for as long as it says so.
        let answering = answer(publisher, self.consumer.queue, decided, self.held.is_empty());
        let answered = bounded(Duration::MAX, self.ending, answering).await;
        let answered = answered.context("the answers were not published before the session ended")??;
        let sent = self.settle_next.send((answered, unit)).await;
        Ok(if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn stays_locked() -> Verdict {
    Verdict::Dead("a row it needs stays locked".to_owned())
}
