use std::collections::HashSet;
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use uuid::Uuid;

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
/// A message whose answer nobody listens to is dead-lettered with that reason, and so is one whose answer is still
/// refused after half a minute of trying: it is done, and replaying it later gives the same answer again.
///
/// # Errors
/// When the connection breaks, or a dead-letter queue is gone or full. Nothing of the batch is acknowledged then.
pub async fn settle(channel: &Channel, queue: &'static str, answered: Answered) -> anyhow::Result<Publisher> {
    let Answered { batch, publisher, answers, burials } = answered;
    let (answers, burials) = tokio::try_join!(answers.wait(), burials.wait())?;
    anyhow::ensure!(burials.refused.is_empty(), "the dead-letter queue of {queue} is full");
    // Both went through one channel, so a returned answer may have come in with the confirm of a burial.
    let mut returned: HashSet<String> = answers.returned.into_iter().chain(burials.returned).collect();
    let mut dead = Vec::new();
    if !returned.is_empty() || !answers.refused.is_empty() {
        let refused = insist(&publisher, &batch, answers.refused, &mut returned).await?;
        for (delivery, answers) in &batch {
            for answer in answers {
                let (key, exchange) = (&answer.routing_key, &answer.exchange);
                if returned.remove(&answer.message_id.to_string()) {
                    dead.push((delivery, format!("nobody listens to {key} on the exchange {exchange}")));
                } else if refused.contains(&answer.message_id) {
                    dead.push((delivery, format!("a queue bound to {key} on the exchange {exchange} is full")));
                }
            }
        }
        anyhow::ensure!(returned.is_empty(), "the dead-letter queue of {queue} is gone");
        let dead = dead.iter().map(|(delivery, reason)| (*delivery, reason.as_str()));
        let burials = dead_letters::bury(&publisher, queue, dead).await?.wait().await?;
        anyhow::ensure!(burials.is_none(), "the dead-letter queue of {queue} is gone or full");
    }
    if let Some((last, _)) = batch.last() {
        channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
    }
    metrics::counter!("messages_settled_total", "queue" => queue).increment(batch.len() as u64);
    Ok(publisher)
}

/// How often a refused answer is published again, with pauses that double from the first: half a minute in all, longer
/// than a queue takes to elect a new leader.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(120);

/// Publishes again what was refused, by its place among the answers, and tells which are still refused in the end. What is
/// returned meanwhile, because its queue is gone, is added to `returned`.
async fn insist(
    publisher: &Publisher,
    batch: &[(Delivery, Vec<Outgoing>)],
    refused: Vec<usize>,
    returned: &mut HashSet<String>,
) -> Result<HashSet<Uuid>, PublishError> {
    let answers: Vec<&Outgoing> = batch.iter().flat_map(|(_, answers)| answers).collect();
    let mut refused: Vec<&Outgoing> = refused.into_iter().filter_map(|at| answers.get(at).copied()).collect();
    for attempt in 0..TRIES {
        if refused.is_empty() {
            break;
        }
        tracing::warn!(refused.len = refused.len(), attempt, "the broker refuses answers; publishing them again");
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
        let unplaced = publisher.publish(refused.iter().copied()).await?.wait().await?;
        returned.extend(unplaced.returned);
        refused = unplaced.refused.into_iter().map(|at| refused[at]).collect();
    }
    Ok(refused.into_iter().map(|answer| answer.message_id).collect())
}
