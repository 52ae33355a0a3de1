use std::collections::HashSet;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;

use super::Verdict;
use crate::{Confirms, Outgoing, PublishError, Publisher, dead_letters};

/// A batch whose answers are with the broker and have yet to be confirmed.
#[derive(Debug)]
pub struct Answered {
    batch: Vec<(Delivery, Vec<Outgoing>)>,
    publisher: Publisher,
    answers: Confirms,
    burials: Confirms,
}

/// The second step: publishes all answers and all dead letters of a batch.
///
/// # Errors
/// When the connection breaks.
pub async fn answer(
    publisher: Publisher,
    queue: &'static str,
    batch: Vec<Delivery>,
    verdicts: Vec<Verdict>,
) -> Result<Answered, PublishError> {
    let mut answered = Vec::with_capacity(batch.len());
    let mut dead = Vec::new();
    for (delivery, verdict) in batch.into_iter().zip(verdicts) {
        answered.push(match verdict {
            Verdict::Done(answers) => (delivery, answers),
            Verdict::Dead(reason) => {
                dead.push((answered.len(), reason));
                (delivery, Vec::new())
            }
        });
    }
    let dead = dead.iter().map(|(at, reason)| (&answered[*at].0, reason.as_str()));
    let burials = dead_letters::bury(&publisher, queue, dead).await?;
    let answers = publisher.publish(answered.iter().flat_map(|(_, answers)| answers)).await?;
    Ok(Answered { batch: answered, publisher, answers, burials })
}

/// The last step: waits for the confirms, then acknowledges the whole batch and every delivery before it.
///
/// A message whose answer nobody listens to is dead-lettered with that reason: it is done, and replaying it, once
/// somebody listens, gives the same answer again.
///
/// # Errors
/// When the connection breaks, the broker refuses a message, or a dead-letter queue is gone. Nothing of the batch is
/// acknowledged then.
pub async fn settle(channel: &Channel, queue: &'static str, answered: Answered) -> anyhow::Result<Publisher> {
    let Answered { batch, publisher, answers, burials } = answered;
    let (mut returned, with_burials) = tokio::try_join!(answers.wait(), burials.wait())?;
    // Both went through one channel, so a returned answer may have come in with the confirm of a burial.
    returned.extend(with_burials);
    if !returned.is_empty() {
        let mut returned: HashSet<String> = returned.into_iter().collect();
        let mut dead = Vec::new();
        for (delivery, answers) in &batch {
            for answer in answers.iter().filter(|answer| returned.remove(&answer.message_id.to_string())) {
                let (key, exchange) = (&answer.routing_key, &answer.exchange);
                dead.push((delivery, format!("nobody listens to {key} on the exchange {exchange}")));
            }
        }
        anyhow::ensure!(returned.is_empty(), "the dead-letter queue of {queue} is gone");
        let dead = dead.iter().map(|(delivery, reason)| (*delivery, reason.as_str()));
        let returned = dead_letters::bury(&publisher, queue, dead).await?.wait().await?;
        anyhow::ensure!(returned.is_empty(), "the dead-letter queue of {queue} is gone");
    }
    if let Some((last, _)) = batch.last() {
        channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
    }
    metrics::counter!("messages_settled_total", "queue" => queue).increment(batch.len() as u64);
    Ok(publisher)
}
