//! A task in the background: steps, each of them bounded, for as long as the service runs.

use std::time::Duration;

use messaging::Fault;
use tokio_util::sync::CancellationToken;

/// How long one step may take: as long as a statement may wait for a lock, and half of the time the process has to end,
/// because a step that has begun is finished. A connection that has gone silent would keep it for ever.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a step once in each period until `shutdown`, and further ones at once for as long as a step says that it left
/// something. `failed` is what the log says when a step fails; the next one is taken a period later.
pub async fn repeat<F>(
    failed: &'static str,
    period: Duration,
    shutdown: &CancellationToken,
    mut step: impl FnMut() -> F,
) where
    F: Future<Output = Result<bool, Fault>>,
{
    while shutdown.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
        loop {
            match bounded(step()).await {
                Ok(true) if !shutdown.is_cancelled() => (),
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "{failed}");
                    break;
                }
            }
        }
    }
}

/// Takes a step. When its time is over it is dropped: its transaction is rolled back, and the next step begins on another
/// connection.
///
/// # Errors
/// That of the step, or that it took too long.
pub async fn bounded<T>(step: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let timed_out = |_elapsed| Fault::TimedOut(anyhow::anyhow!("not done within {} s", STEP_TIMEOUT.as_secs()));
    tokio::time::timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
}
