use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long one unit of work may still take once its service is to stop. A service does up to three of them one after the
/// other while it drains, for which it has 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one unit of work, for at most `limit`, and for at most 2 s once `stop` is cancelled.
///
/// `None` when it takes longer. It is dropped then: its transaction is rolled back, or its connection closed, and if it was
/// just committing, it is unknown whether that took effect.
pub async fn bounded<T>(limit: Duration, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let deadline = async {
        if timeout(limit, stop.cancelled()).await.is_ok() {
            sleep(STOP_TIMEOUT).await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deadline => None,
    }
}
