use std::collections::HashSet;
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use uuid::Uuid;

use super::Verdict;
use crate::publisher::{CONFIRM_TIMEOUT, Frame};
use crate::{Confirms, Outgoing, Progress, PublishError, Publisher, Unplaced, dead_letters};

/// A batch whose answers are with the broker and have yet to be confirmed.
#[derive(Debug)]
pub struct Answered<'c> {
    batch: Vec<(Delivery, Vec<Outgoing>)>,
    /// The dead ones, by their place in the batch, with the reason.
    dead: Vec<(usize, String)>,
    publisher: Publisher<'c>,
    answers: Confirms,
    dead_letters: Confirms,
    is_multiple: bool,
}

/// The second step: publishes all answers and all dead letters of a batch. `is_multiple` says that one acknowledgement may cover
/// the batch: no delivery before its last one has yet to be decided.
///
/// # Errors
/// When the connection breaks.
pub async fn answer<'c>(
    publisher: Publisher<'c>,
    queue: &'static str,
    decided: Vec<(Delivery, Verdict)>,
    is_multiple: bool,
) -> Result<Answered<'c>, PublishError> {
    let mut answered = Vec::with_capacity(decided.len());
    let mut dead = Vec::new();
    for (delivery, verdict) in decided {
        answered.push(match verdict {
            Verdict::Done(answers) => (delivery, answers),
            Verdict::Dead(reason) => {
                dead.push((answered.len(), reason));
                (delivery, Vec::new())
            }
        });
    }
    let frames = dead.iter().map(|(at, reason)| dead_letters::frame(queue, &answered[*at].0, reason));
    let dead_letters = publisher.send_all(frames.collect()).await?;
    let messages: Vec<&Outgoing> = answered.iter().flat_map(|(_, answers)| answers).collect();
    let answers = publisher.publish(messages).await?;
    Ok(Answered { batch: answered, dead, publisher, answers, dead_letters, is_multiple })
}

/// The last step: waits for the confirms, then acknowledges the batch.
///
/// What the broker refuses, because a queue is full or has no leader at the moment, is published again: an answer for half a
/// minute, a dead letter for two seconds. A message whose answer nobody listens to is dead-lettered with that reason, and so is
/// one whose answer is still refused then: it is done, and replaying it later gives the same answer again.
///
/// A dead letter that its queue does not take is rejected: the broker keeps it and dead-letters it once there is room, without
/// the reason. So it holds up no other message.
///
/// # Errors
/// When the connection breaks, or the broker neither takes nor refuses a message within 30 s. Nothing of the batch is
/// acknowledged then.
pub async fn settle<'c>(
    channel: &Channel,
    queue: &'static str,
    answered: Answered<'c>,
    progress: &Progress,
) -> anyhow::Result<Publisher<'c>> {
    let Answered { batch, dead, mut publisher, answers, dead_letters, is_multiple } = answered;
    // One after the other: both wait for the same channel.
    let mut unplaced_dead = dead_letters.wait(CONFIRM_TIMEOUT).await?;
    let mut unplaced = answers.wait(CONFIRM_TIMEOUT).await?;
    let is_answer = |id: &str| {
        let id = Uuid::parse_str(id).ok();
        batch.iter().flat_map(|(_, answers)| answers).any(|answer| Some(answer.message_id) == id)
    };
    // Both went through one channel, so what was returned may have come in with a confirm of the other.
    let mut returned: Vec<String> = unplaced_dead.returned.drain(..).chain(unplaced.returned.drain(..)).collect();
    unplaced.returned = returned.extract_if(.., |id| is_answer(id)).collect();
    unplaced_dead.returned = returned;
    let mut to_reject = place_dead_letters(&mut publisher, queue, &batch, &dead, unplaced_dead).await?;
    if !unplaced.is_none() {
        let undelivered = undelivered(&mut publisher, &batch, unplaced, progress).await?;
        let frames = undelivered.iter().map(|(at, reason)| dead_letters::frame(queue, &batch[*at].0, reason));
        let placing = publisher.send_all(frames.collect()).await?.wait(CONFIRM_TIMEOUT).await?;
        to_reject.extend(place_dead_letters(&mut publisher, queue, &batch, &undelivered, placing).await?);
    }
    acknowledge(channel, &batch, &to_reject, is_multiple).await?;
    metrics::counter!("messages_settled_total", "queue" => queue).increment(batch.len() as u64);
    Ok(publisher)
}

/// Acknowledges a batch: all at once if it `is_multiple`, else each message alone; and so where some are to be rejected, which
/// are given by their places.
async fn acknowledge(
    channel: &Channel,
    batch: &[(Delivery, Vec<Outgoing>)],
    to_reject: &HashSet<usize>,
    is_multiple: bool,
) -> lapin::Result<()> {
    let mut tags = batch.iter().map(|(delivery, _)| delivery.delivery_tag);
    if is_multiple && to_reject.is_empty() {
        let Some(last) = tags.next_back() else { return Ok(()) };
        return channel.basic_ack(last, BasicAckOptions { multiple: true }).await;
    }
    for (at, tag) in tags.enumerate() {
        if to_reject.contains(&at) {
            channel.basic_reject(tag, BasicRejectOptions { requeue: false }).await?;
        } else {
            channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
        }
    }
    Ok(())
}

/// Publishes dead letters again that were refused, and tells the places of those that their queue does not take. Where one was
/// returned, because the queue is gone or not bound, they all count as such: a message may have no id, or another's.
///
/// # Errors
/// When the connection breaks, or the broker does not confirm within 30 s.
async fn place_dead_letters(
    publisher: &mut Publisher<'_>,
    queue: &'static str,
    batch: &[(Delivery, Vec<Outgoing>)],
    dead: &[(usize, String)],
    unplaced: Unplaced,
) -> anyhow::Result<HashSet<usize>> {
    let frame = |_: &Publisher<'_>, at: usize| {
        let (place, reason) = &dead[at];
        dead_letters::frame(queue, &batch[*place].0, reason)
    };
    let retried = retry_refused(publisher, unplaced.refused, DEAD_LETTER_TRIES, frame).await?;
    let is_gone = !unplaced.returned.is_empty() || !retried.returned.is_empty();
    let mut to_reject = HashSet::new();
    for (at, (place, reason)) in dead.iter().enumerate() {
        dead_letters::report(queue, &batch[*place].0, reason);
        if is_gone || retried.refused.contains(&at) {
            to_reject.insert(*place);
        }
    }
    if !to_reject.is_empty() {
        let why = if is_gone { "is gone" } else { "is full or has no leader" };
        tracing::warn!(
            queue,
            messages.len = to_reject.len(),
            "the dead-letter queue {why}: the broker keeps messages for it"
        );
    }
    Ok(to_reject)
}

/// Publishes answers again that were refused, and tells which messages have an answer that could not be delivered, with the
/// reason.
///
/// # Errors
/// When the connection breaks, or the broker does not confirm within 30 s.
async fn undelivered(
    publisher: &mut Publisher<'_>,
    batch: &[(Delivery, Vec<Outgoing>)],
    unplaced: Unplaced,
    progress: &Progress,
) -> anyhow::Result<Vec<(usize, String)>> {
    let answers: Vec<(usize, &Outgoing)> = batch
        .iter()
        .enumerate()
        .flat_map(|(at, (_, answers))| answers.iter().map(move |answer| (at, answer)))
        .collect();
    let mut returned: HashSet<String> = unplaced.returned.into_iter().collect();
    let frame = |publisher: &Publisher<'_>, at: usize| publisher.frame(answers[at].1);
    let retried = retry_refused(publisher, unplaced.refused, ANSWER_TRIES, frame).await?;
    returned.extend(retried.returned);
    let mut undelivered = Vec::new();
    for (at, (place, answer)) in answers.iter().enumerate() {
        let (key, exchange) = (&answer.routing_key, &answer.exchange);
        if returned.contains(&answer.message_id.to_string()) {
            progress.undelivered(exchange, key);
            undelivered.push((*place, format!("nobody listens to {key} on the exchange {exchange}")));
        } else if retried.refused.contains(&at) {
            undelivered.push((*place, format!("a queue bound to {key} on the exchange {exchange} is full")));
        }
    }
    Ok(undelivered)
}

/// How often a refused message is published again, with pauses that double from the first: an answer for half a minute in
/// all, longer than a queue takes to elect a new leader; a dead letter for two seconds, because the broker has it anyway.
const ANSWER_TRIES: u32 = 8;
const DEAD_LETTER_TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(120);

/// Publishes again, with backoff, what the broker refused: `refused` are places, and `frame` makes the message of a place.
/// Each time it goes on with a new channel: see [`Publisher::reopen`].
/// Tells which are still refused in the end, and what was returned on the way because its queue is gone.
async fn retry_refused<'a>(
    publisher: &mut Publisher<'_>,
    mut refused: Vec<usize>,
    tries: u32,
    frame: impl Fn(&Publisher<'_>, usize) -> Frame<'a>,
) -> anyhow::Result<Unplaced> {
    let mut returned = Vec::new();
    for attempt in 0..tries {
        if refused.is_empty() {
            break;
        }
        tracing::warn!(refused.len = refused.len(), attempt, "the broker refuses messages; publishing them again");
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
        publisher.reopen().await?;
        let sent = publisher.send_all(refused.iter().map(|at| frame(publisher, *at)).collect()).await?;
        let unplaced = sent.wait(CONFIRM_TIMEOUT).await?;
        returned.extend(unplaced.returned);
        refused = unplaced.refused.into_iter().map(|at| refused[at]).collect();
    }
    Ok(Unplaced { refused, returned, unconfirmed: Vec::new() })
}
