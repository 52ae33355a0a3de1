use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use database::{LockWait, bounded};
use futures::FutureExt;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use tokio_util::sync::CancellationToken;

use super::{Handler, Limits, Verdict};
use crate::Fault;
use crate::publisher::message_id;
use crate::topology::DELIVERY_LIMIT;

/// The first step: gets a verdict for each message of a batch, whatever it takes, but for those of which a row stays locked.
///
/// - A transient fault is tried again with backoff, for as long as the batch is wanted and the limits allow.
///   It is wanted while the channel that delivered it `is_open`, and the session is not `ending`.
/// - A batch that runs out of time is halved, because a slow server may bear a smaller one. If its half does so too, messages
///   are tried one by one: where all statements hang, that is soon found out.
/// - A permanent fault is caused by some message: the batch is halved until that one is alone, and it is dead.
/// - A batch waits for `locks` as it is told to. When a row stays locked, its messages are tried one by one, each with a brief
///   wait: the others pass.
///
/// No try is dropped before its time is up: a transaction that has begun ends by itself.
///
/// # Errors
/// When the batch is no longer wanted, or could not be handled for too long. It then comes back.
pub async fn decide<H: Handler>(
    handler: &H,
    queue: &'static str,
    batch: &[Delivery],
    locks: LockWait,
    limits: Limits,
    is_open: impl Fn() -> bool,
    ending: &CancellationToken,
) -> anyhow::Result<Vec<Option<Verdict>>> {
    let wanted = || is_open() && !ending.is_cancelled();
    let begun = Instant::now();
    let mut verdicts = vec![None; batch.len()];
    let whole = 0..batch.len();
    let mut undecided = vec![(whole, locks)];
    let (mut pauses, mut tries, mut failing_since) = (pauses(), TRIES, None);
    while let Some((range, locks)) = undecided.pop() {
        let part = &batch[range.clone()];
        let tried = Instant::now();
        let fault = match attempt(handler, part, locks, limits.timeout(), ending).await {
            Ok(decided) => {
                anyhow::ensure!(decided.len() == part.len(), "{} verdicts for {} messages", decided.len(), part.len());
                for (at, verdict) in range.zip(decided) {
                    verdicts[at] = Some(verdict);
                }
                tries = TRIES;
                continue;
            }
            Err(fault) => fault,
        };
        if matches!(fault, Fault::Server(_) | Fault::TimedOut(_)) {
            failing_since.get_or_insert(tried);
        }
        match fault {
            Fault::Sticky(_) | Fault::TimedOut(_) | Fault::Locked(_) if part.len() > 1 => {
                let messages = part.len();
                tracing::warn!(queue, batch.len = messages, error = %fault, "a batch fails; dividing it");
                let mut parts = match fault {
                    Fault::Locked(_) => singles(range).map(|single| (single, LockWait::Brief)).collect(),
                    Fault::TimedOut(_) if messages < batch.len() => {
                        singles(range).map(|single| (single, locks)).collect()
                    }
                    _ => Vec::from(halves(range).map(|half| (half, locks))),
                };
                parts.reverse();
                undecided.extend(parts);
            }
            Fault::Sticky(error) if tries == 0 => {
                verdicts[range.start] = Some(Verdict::Dead(format!("cannot be handled: {error:#}")));
                tries = TRIES;
            }
            Fault::Locked(error) => {
                let message_id = message_id(&part[0].properties);
                tracing::warn!(queue, message_id, %error, "a row that a message needs is locked; others go first");
                metrics::counter!("messages_retried_total", "queue" => queue).increment(1);
            }
            fault => {
                let is_late = || failing_since.is_some_and(|since| since.elapsed() >= limits.give_back_after());
                if matches!(fault, Fault::Sticky(_)) {
                    tries -= 1;
                } else if is_late() && batch.iter().all(may_go_back) {
                    anyhow::bail!("a batch of {queue} goes back, because it cannot be handled: {fault}");
                }
                let pause = pauses.next().unwrap_or(MAX_PAUSE);
                let (messages, pause_ms) = (part.len(), pause.as_millis());
                tracing::warn!(queue, batch.len = messages, pause_ms, error = %fault, "a batch has to wait");
                metrics::counter!("messages_retried_total", "queue" => queue).increment(messages as u64);
                tokio::time::sleep(pause).await;
                undecided.push((range, locks));
            }
        }
        anyhow::ensure!(undecided.is_empty() || wanted(), "the batch is no longer wanted");
    }
    metrics::histogram!("batch_messages", "queue" => queue).record(batch.len() as f64);
    metrics::histogram!("batch_decide_seconds", "queue" => queue).record(begun.elapsed().as_secs_f64());
    Ok(verdicts)
}

async fn attempt<H: Handler>(
    handler: &H,
    part: &[Delivery],
    locks: LockWait,
    limit: Duration,
    ending: &CancellationToken,
) -> Result<Vec<Verdict>, Fault> {
    let handling = AssertUnwindSafe(handler.handle(part, locks)).catch_unwind();
    match bounded(limit, ending, handling).await {
        Some(handled) => handled.unwrap_or_else(|payload| Err(Fault::panicked(&*payload))),
        None => Err(Fault::TimedOut(anyhow::anyhow!("not handled in time"))),
    }
}

/// Whether a message may be delivered once more without coming near the delivery limit of its queue, at which the broker
/// dead-letters it: a server that fails again and again must not cost a good message. Beyond that it is tried for as long as
/// it takes.
fn may_go_back(message: &Delivery) -> bool {
    times_returned(message) < i64::from(DELIVERY_LIMIT) / 2
}

/// How often a message went back to its quorum queue. The header of a first delivery is its publisher's.
pub(super) fn times_returned(message: &Delivery) -> i64 {
    if !message.redelivered {
        return 0;
    }
    let headers = message.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    count.and_then(AMQPValue::as_long_long_int).unwrap_or_default()
}

/// A message that fails alone is tried so many times more: what made it fail may have been a moment's.
const TRIES: usize = 2;

fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [range.start..middle, middle..range.end]
}

fn singles(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    range.map(|at| at..at + 1)
}

/// Short, so that a queue goes on within moments once a server is back.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(2);

pub(super) fn pauses() -> impl Iterator<Item = Duration> + Send {
    database::backoff(Duration::from_millis(50), MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use lapin::types::FieldTable;

    use super::*;

    /// Cannot bear a batch with the message "poison" in it, and has a server that is away the first few times.
    struct Picky {
        server_is_back_after: Mutex<usize>,
        panics: bool,
    }

    impl Handler for Picky {
        async fn handle(&self, batch: &[Delivery], _: LockWait) -> Result<Vec<Verdict>, Fault> {
            {
                let mut left = self.server_is_back_after.lock().unwrap();
                if *left > 0 {
                    *left -= 1;
                    return Err(sqlx::Error::PoolTimedOut.into());
                }
            }
            if batch.iter().any(|message| message.data == b"poison") {
                assert!(!self.panics, "it was poison");
                return Err(Fault::Sticky(anyhow::anyhow!("poison")));
            }
            Ok(vec![Verdict::Done(vec![]); batch.len()])
        }

        async fn ready(&self) -> Result<(), Fault> {
            Ok(())
        }
    }

    const LIMITS: Limits = Limits {
        batch_max_messages: 10,
        prefetch_messages: 10,
        batch_timeout_seconds: 1,
        batch_give_back_seconds: 60,
        retry_after_seconds: 5,
    };

    fn batch(bodies: &[&str]) -> Vec<Delivery> {
        let delivery = |(tag, body): (usize, &&str)| {
            Delivery::mock(tag as u64, "".into(), "".into(), false, body.as_bytes().to_vec())
        };
        bodies.iter().enumerate().map(delivery).collect()
    }

    async fn decided(handler: Picky, bodies: &[&str]) -> Vec<bool> {
        let verdicts =
            decide(&handler, "q", &batch(bodies), LockWait::Usual, LIMITS, || true, &CancellationToken::new())
                .await
                .unwrap();
        verdicts.into_iter().map(|verdict| matches!(verdict, Some(Verdict::Done(_)))).collect()
    }

    #[test]
    fn only_the_broker_counts_how_often_a_message_went_back() {
        for (redelivered, returned) in [(false, 0), (true, 50)] {
            let mut message = Delivery::mock(1, "".into(), "".into(), redelivered, Vec::new());
            let mut headers = FieldTable::default();
            headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(50));
            message.properties = message.properties.with_headers(headers);
            assert_eq!(times_returned(&message), returned);
        }
    }

    #[tokio::test]
    async fn poison_is_found_and_its_neighbours_pass_in_order() {
        for panics in [false, true] {
            let handler = Picky { server_is_back_after: Mutex::new(0), panics };
            let bodies = ["a", "poison", "b", "c", "poison", "d", "e"];
            assert_eq!(decided(handler, &bodies).await, [true, false, true, true, false, true, true]);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_costs_no_message() {
        let handler = Picky { server_is_back_after: Mutex::new(3), panics: false };
        assert_eq!(decided(handler, &["a", "b"]).await, [true, true]);
    }

    /// A server of which every statement hangs, and what was tried.
    struct Hanging(Mutex<Vec<usize>>);

    impl Handler for Hanging {
        async fn handle(&self, batch: &[Delivery], _: LockWait) -> Result<Vec<Verdict>, Fault> {
            self.0.lock().unwrap().push(batch.len());
            std::future::pending().await
        }

        async fn ready(&self) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_batch_goes_back_after_three_tries_where_every_statement_hangs() {
        let handler = Hanging(Mutex::default());
        // As long as the three tries take: the time of the first two counts, too.
        let limits = Limits { batch_give_back_seconds: 3 * LIMITS.batch_timeout_seconds, ..LIMITS };
        let decided =
            decide(&handler, "q", &batch(&["a"; 8]), LockWait::Usual, limits, || true, &CancellationToken::new()).await;
        assert!(decided.unwrap_err().to_string().contains("goes back"));
        assert_eq!(*handler.0.lock().unwrap(), [8, 4, 1]);
    }

    /// Somebody has locked what the message "locked" needs; and how often that was waited for, and how.
    #[derive(Default)]
    struct Locked(Mutex<Vec<LockWait>>);

    impl Handler for Locked {
        async fn handle(&self, batch: &[Delivery], locks: LockWait) -> Result<Vec<Verdict>, Fault> {
            if batch.iter().any(|message| message.data == b"locked") {
                self.0.lock().unwrap().push(locks);
                return Err(Fault::Locked(anyhow::anyhow!("canceling statement due to lock timeout")));
            }
            Ok(vec![Verdict::Done(vec![]); batch.len()])
        }

        async fn ready(&self) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn messages_whose_rows_are_locked_wait_and_their_neighbours_pass() {
        use LockWait::{Brief, Usual};
        for (bodies, first, waited) in [
            (&["locked", "a", "b", "locked", "c"][..], Usual, &[Usual, Brief, Brief][..]),
            (&["locked"], Usual, &[Usual]),
            (&["locked"; 8], Brief, &[Brief; 9]),
        ] {
            let handler = Locked::default();
            let batch = batch(bodies);
            let ending = CancellationToken::new();
            let verdicts = decide(&handler, "q", &batch, first, LIMITS, || true, &ending).await.unwrap();
            let is_locked: Vec<bool> = verdicts.iter().map(Option::is_none).collect();
            assert_eq!(is_locked, bodies.iter().map(|body| *body == "locked").collect::<Vec<_>>());
            assert_eq!(*handler.0.lock().unwrap(), waited);
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_no_longer_wanted_is_given_up() {
        let handler = Picky { server_is_back_after: Mutex::new(usize::MAX), panics: false };
        assert!(
            decide(&handler, "q", &batch(&["a"]), LockWait::Usual, LIMITS, || false, &CancellationToken::new())
                .await
                .is_err()
        );
    }
}
