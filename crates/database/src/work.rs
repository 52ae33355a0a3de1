use std::fmt::Display;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Failures;

/// How long one unit of background work may take, if its user says nothing else. More than a statement may take, so that the
/// server ends first what is slow; what takes longer is on a connection that has gone silent.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(20);

/// The most rows that tidying deletes in one transaction, so that it holds few locks and is soon over. Where there are more,
/// it is repeated.
pub const DELETED_AT_ONCE: i64 = 1_000;

/// How long a unit of work may still take once its service is to stop. A service does up to three of them one after the
/// other while it drains, for which it has 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one unit of work, for at most `limit`, and for at most 2 s once `stop` is cancelled.
///
/// `None` when it takes longer. It is dropped then: its transaction is rolled back, or its connection closed, and if it was
/// just committing, it is unknown whether that took effect.
pub async fn bounded<T>(limit: Duration, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    timeout(limit, stopped_within(STOP_TIMEOUT, stop, work)).await.ok().flatten()
}

/// Does work, for at most `limit` once `stop` is cancelled. `None` when it takes longer; it is dropped then.
pub async fn stopped_within<T>(limit: Duration, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let deadline = async {
        stop.cancelled().await;
        sleep(limit).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deadline => None,
    }
}

/// Runs a unit of work once in each `period` until `stop`, and again at once for as long as it says that it left something
/// to do. Each is [`bounded`]. When one fails or takes too long, the log and `failures` tell, and the next begins a period
/// later. `name` is how the work is called, in the plural.
pub async fn repeat<E: Display, F: Future<Output = Result<bool, E>>>(
    name: &'static str,
    period: Duration,
    stop: &CancellationToken,
    failures: &Failures,
    mut work: impl FnMut() -> F,
) {
    while stop.run_until_cancelled(sleep(period)).await.is_some() {
        while !stop.is_cancelled() {
            // Boxed, because the futures of all tasks together overflow the stack of a test's thread.
            let error = match bounded(WORK_TIMEOUT, stop, Box::pin(work())).await {
                Some(Ok(true)) => continue,
                Some(Ok(false)) => break,
                Some(Err(error)) => error.to_string(),
                None => "it takes too long".to_owned(),
            };
            tracing::warn!(error, "{name} have to wait");
            failures.failed(name, error);
            break;
        }
    }
}

/// The pauses between tries, without end: they double from `min` to `max`. Each is up to twice as long by chance, so that those
/// who failed together do not try again together.
pub fn backoff(min: Duration, max: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default().with_min_delay(min).with_max_delay(max).with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_given_up_when_the_limit_after_a_stop_is_over() {
        const LIMIT: Duration = Duration::from_secs(7);
        let stop = CancellationToken::new();
        let endless = || stopped_within(LIMIT, &stop, pending::<()>());
        assert!(timeout(LIMIT * 100, endless()).await.is_err(), "nobody has said stop");
        stop.cancel();
        assert_eq!(timeout(LIMIT * 2, endless()).await, Ok(None));
        assert_eq!(stopped_within(LIMIT, &stop, sleep(LIMIT / 2)).await, Some(()));
        assert_eq!(stopped_within(Duration::ZERO, &stop, ready(())).await, Some(()), "what is done is not dropped");
    }
}
