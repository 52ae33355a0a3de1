use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use lapin::message::Delivery;

use super::{Handler, Verdict};
use crate::Fault;

/// The first step: gets a verdict for each message of a batch, whatever it takes.
///
/// What is the server's fault is tried again with growing pauses for as long as the batch is `wanted`. What sticks is
/// the fault of some message: the batch is halved until that one is alone, and it is dead.
///
/// # Errors
/// When the batch is no longer wanted. It then comes back.
pub async fn decide<H: Handler>(
    handler: &H,
    queue: &'static str,
    batch: &[Delivery],
    wanted: impl Fn() -> bool,
) -> anyhow::Result<Vec<Verdict>> {
    let begun = Instant::now();
    let mut verdicts = Vec::with_capacity(batch.len());
    let whole = 0..batch.len();
    let mut undecided = vec![whole];
    let (mut pauses, mut tries) = (pauses(), TRIES);
    while let Some(range) = undecided.pop() {
        let part = &batch[range.clone()];
        let handled = AssertUnwindSafe(handler.handle(part)).catch_unwind().await;
        match handled.unwrap_or_else(|payload| Err(Fault::panicked(&*payload))) {
            Ok(decided) => {
                anyhow::ensure!(decided.len() == part.len(), "{} verdicts for {} messages", decided.len(), part.len());
                verdicts.extend(decided);
                tries = TRIES;
            }
            Err(Fault::Sticky(error)) if part.len() > 1 => {
                let (messages, error) = (part.len(), format!("{error:#}"));
                tracing::warn!(queue, batch.len = messages, error, "a batch fails; halving it");
                undecided.extend(halves(range).into_iter().rev());
            }
            Err(Fault::Sticky(error)) if tries == 0 => {
                verdicts.push(Verdict::Dead(format!("cannot be handled: {error:#}")));
                tries = TRIES;
            }
            Err(fault) => {
                if matches!(fault, Fault::Sticky(_)) {
                    tries -= 1;
                }
                let pause = pauses.next().unwrap_or(MAX_PAUSE);
                let (messages, pause_ms) = (part.len(), pause.as_millis());
                tracing::warn!(queue, batch.len = messages, pause_ms, error = %fault, "a batch has to wait");
                metrics::counter!("messages_retried_total", "queue" => queue).increment(messages as u64);
                tokio::time::sleep(pause).await;
                anyhow::ensure!(wanted(), "the batch is no longer wanted");
                undecided.push(range);
            }
        }
    }
    metrics::histogram!("batch_messages", "queue" => queue).record(batch.len() as f64);
    metrics::histogram!("batch_decide_seconds", "queue" => queue).record(begun.elapsed().as_secs_f64());
    Ok(verdicts)
}

/// A message that fails alone is tried so many times more: what made it fail may have been a moment's.
const TRIES: usize = 2;

fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [range.start..middle, middle..range.end]
}

const MAX_PAUSE: Duration = Duration::from_secs(5);

fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(MAX_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Cannot bear a batch with the message "poison" in it, and has a server that is away the first few times.
    struct Picky {
        server_is_back_after: Mutex<usize>,
        panics: bool,
    }

    impl Handler for Picky {
        async fn handle(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Fault> {
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
    }

    fn batch(bodies: &[&str]) -> Vec<Delivery> {
        let delivery = |(tag, body): (usize, &&str)| {
            Delivery::mock(tag as u64, "".into(), "".into(), false, body.as_bytes().to_vec())
        };
        bodies.iter().enumerate().map(delivery).collect()
    }

    async fn decided(handler: Picky, bodies: &[&str]) -> Vec<bool> {
        let verdicts = decide(&handler, "q", &batch(bodies), || true).await.unwrap();
        verdicts.into_iter().map(|verdict| matches!(verdict, Verdict::Done(_))).collect()
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

    #[tokio::test]
    async fn a_batch_that_is_no_longer_wanted_is_given_up() {
        let handler = Picky { server_is_back_after: Mutex::new(usize::MAX), panics: false };
        assert!(decide(&handler, "q", &batch(&["a"]), || false).await.is_err());
    }
}
