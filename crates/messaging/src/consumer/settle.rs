use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use uuid::Uuid;

use super::{Retry, Verdict};
use crate::publisher::{CONFIRM_TIMEOUT, Frame};
use crate::{Confirms, Outgoing, Progress, PublishError, Publisher, Unplaced, dead_letters};

/// A batch whose answers are with the broker and have yet to be confirmed.
#[derive(Debug)]
pub struct Answered<'c> {
    batch: Vec<(Delivery, Vec<Outgoing>)>,
    /// Those that go to another queue, by their place in the batch.
    moved: Vec<(usize, Move)>,
    publisher: Publisher<'c>,
    answers: Confirms,
    moves: Confirms,
    acknowledges: Acknowledges,
}

/// How a batch is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledges {
    /// All at once, with every delivery before its last.
    UpTo,
    /// Each message alone: one that was delivered before has yet to be decided.
    Each,
}

/// To which queue a message goes instead of being answered.
#[derive(Debug)]
enum Move {
    /// To `Q.dead`, for this reason.
    Dead(String),
    /// To `Q.retry`, because a row it needs is locked.
    Retry(Retry),
}

impl Move {
    fn frame<'a>(&self, queue: &'static str, delivery: &'a Delivery) -> Frame<'a> {
        match self {
            Self::Dead(reason) => dead_letters::frame(queue, delivery, reason),
            Self::Retry(retry) => retry.frame(queue, delivery),
        }
    }
}

/// The second step: publishes all answers of a batch, and to other queues what goes there.
///
/// # Errors
/// When the connection breaks.
pub async fn answer<'c>(
    publisher: Publisher<'c>,
    queue: &'static str,
    decided: Vec<(Delivery, Verdict)>,
    acknowledges: Acknowledges,
) -> Result<Answered<'c>, PublishError> {
    let mut batch = Vec::with_capacity(decided.len());
    let mut moved = Vec::new();
    for (delivery, verdict) in decided {
        let answers = match verdict {
            Verdict::Done(answers) => answers,
            Verdict::Dead(reason) => {
                moved.push((batch.len(), Move::Dead(reason)));
                Vec::new()
            }
            Verdict::Retry(retry) => {
                moved.push((batch.len(), Move::Retry(retry)));
                Vec::new()
            }
        };
        batch.push((delivery, answers));
    }
    let moves = publisher.send_all(frames(queue, &batch, &moved)).await?;
    let messages: Vec<&Outgoing> = batch.iter().flat_map(|(_, answers)| answers).collect();
    let answers = publisher.publish(messages).await?;
    Ok(Answered { batch, moved, publisher, answers, moves, acknowledges })
}

fn frames<'a>(queue: &'static str, batch: &'a [(Delivery, Vec<Outgoing>)], moved: &[(usize, Move)]) -> Vec<Frame<'a>> {
    moved.iter().map(|(at, to)| to.frame(queue, &batch[*at].0)).collect()
}

/// The last step: waits for the confirms, then acknowledges the batch. Tells how many of its messages are done or dead.
///
/// What the broker refuses, because a queue is full or has no leader at the moment, is published again: an answer for half a
/// minute, what goes to another queue for two seconds. A message whose answer nobody listens to is dead-lettered with that reason,
/// and so is one whose answer is still refused then: it is done, and replaying it later gives the same answer again.
///
/// A dead letter that its queue does not take is rejected: the broker keeps it and dead-letters it once there is room, without
/// the reason. What `Q.retry` does not take goes back to its queue. So neither holds up another message.
///
/// # Errors
/// When the connection breaks, or the broker neither takes nor refuses a message within 30 s. Nothing of the batch is
/// acknowledged then.
pub async fn settle<'c>(
    channel: &Channel,
    queue: &'static str,
    answered: Answered<'c>,
    progress: &Progress,
) -> anyhow::Result<(Publisher<'c>, usize)> {
    let Answered { batch, moved, mut publisher, answers, moves, acknowledges } = answered;
    // One after the other: both wait for the same channel.
    let mut unplaced_moves = moves.wait(CONFIRM_TIMEOUT).await?;
    let mut unplaced = answers.wait(CONFIRM_TIMEOUT).await?;
    let is_answer = |id: &str| {
        let id = Uuid::parse_str(id).ok();
        batch.iter().flat_map(|(_, answers)| answers).any(|answer| Some(answer.message_id) == id)
    };
    // Both went through one channel, so what was returned may have come in with a confirm of the other.
    let mut returned: Vec<String> = unplaced_moves.returned.drain(..).chain(unplaced.returned.drain(..)).collect();
    unplaced.returned = returned.extract_if(.., |id| is_answer(id)).collect();
    unplaced_moves.returned = returned;
    let mut to_reject = place(&mut publisher, queue, &batch, &moved, unplaced_moves).await?;
    if !unplaced.is_none() {
        let undelivered = undelivered(&mut publisher, &batch, unplaced, progress).await?;
        let placing = publisher.send_all(frames(queue, &batch, &undelivered)).await?.wait(CONFIRM_TIMEOUT).await?;
        to_reject.extend(place(&mut publisher, queue, &batch, &undelivered, placing).await?);
    }
    acknowledge(channel, &batch, &to_reject, acknowledges).await?;
    let to_be_retried = moved.iter().filter(|(_, to)| matches!(to, Move::Retry(_))).count();
    let settled = batch.len() - to_be_retried;
    metrics::counter!("messages_settled_total", "queue" => queue).increment(settled as u64);
    Ok((publisher, settled))
}

/// Acknowledges a batch. Where some are to be rejected, which are given by their places and with whether they are requeued, each
/// message is acknowledged alone.
async fn acknowledge(
    channel: &Channel,
    batch: &[(Delivery, Vec<Outgoing>)],
    to_reject: &HashMap<usize, BasicRejectOptions>,
    acknowledges: Acknowledges,
) -> lapin::Result<()> {
    let mut tags = batch.iter().map(|(delivery, _)| delivery.delivery_tag);
    if acknowledges == Acknowledges::UpTo && to_reject.is_empty() {
        let Some(last) = tags.next_back() else { return Ok(()) };
        return channel.basic_ack(last, BasicAckOptions { multiple: true }).await;
    }
    for (at, tag) in tags.enumerate() {
        if let Some(options) = to_reject.get(&at) {
            channel.basic_reject(tag, *options).await?;
        } else {
            channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
        }
    }
    Ok(())
}

/// Publishes again what other queues refused, and tells the places of the messages that they do not take, and how to reject those.
/// Where one was returned, because a queue is gone or not bound, they all count as such: a message may have no id, or another's.
///
/// # Errors
/// When the connection breaks, or the broker does not confirm within 30 s.
async fn place(
    publisher: &mut Publisher<'_>,
    queue: &'static str,
    batch: &[(Delivery, Vec<Outgoing>)],
    moved: &[(usize, Move)],
    unplaced: Unplaced,
) -> anyhow::Result<HashMap<usize, BasicRejectOptions>> {
    let frame = |_: &Publisher<'_>, at: usize| {
        let (place, to) = &moved[at];
        to.frame(queue, &batch[*place].0)
    };
    let retried = retry_refused(publisher, unplaced.refused, MOVE_TRIES, frame).await?;
    let is_gone = !unplaced.returned.is_empty() || !retried.returned.is_empty();
    let mut to_reject = HashMap::new();
    for (at, (place, to)) in moved.iter().enumerate() {
        if let Move::Dead(reason) = to {
            dead_letters::report(queue, &batch[*place].0, reason);
        }
        if is_gone || retried.refused.contains(&at) {
            to_reject.insert(*place, BasicRejectOptions { requeue: matches!(to, Move::Retry(_)) });
        }
    }
    if !to_reject.is_empty() {
        let why = if is_gone { "is gone" } else { "is full or has no leader" };
        tracing::warn!(
            queue,
            messages.len = to_reject.len(),
            "its queue for dead letters or retries {why}: the broker keeps messages"
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
) -> anyhow::Result<Vec<(usize, Move)>> {
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
            let reason = format!("nobody listens to {key} on the exchange {exchange}");
            undelivered.push((*place, Move::Dead(reason)));
        } else if retried.refused.contains(&at) {
            let reason = format!("a queue bound to {key} on the exchange {exchange} is full");
            undelivered.push((*place, Move::Dead(reason)));
        }
    }
    Ok(undelivered)
}

/// How often a refused message is published again, with pauses that double from the first: an answer for half a minute in
/// all, longer than a queue takes to elect a new leader; what goes to another queue for two seconds, because the broker has it
/// anyway.
const ANSWER_TRIES: u32 = 8;
const MOVE_TRIES: u32 = 4;
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
