//! A task in the background: steps, each of them bounded.

use std::time::Duration;

use messaging::Fault;

/// How long one step may take: as long as a statement may wait for a lock, and half of the time the process has to end,
/// because a step that has begun is finished. A connection that has gone silent would keep it for ever.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a step. When its time is over it is dropped: its transaction is rolled back, and the next step begins on another
/// connection.
///
/// # Errors
/// That of the step, or that it took too long.
pub async fn bounded<T>(step: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let timed_out = |_elapsed| Fault::TimedOut(anyhow::anyhow!("not done within {} s", STEP_TIMEOUT.as_secs()));
    tokio::time::timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
}
