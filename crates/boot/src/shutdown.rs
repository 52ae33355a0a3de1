//! Ends a service in order: not ready, stop taking work, finish what was begun, exit; all of it within a time.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        }
        cancelled.cancel();
    });
    Ok(token)
}

/// Waits for `work` to end; after `shutdown` no longer than `limit`.
///
/// # Errors
/// That of the work, or that it took too long to drain.
pub async fn bounded(
    work: impl Future<Output = anyhow::Result<()>>,
    shutdown: &CancellationToken,
    limit: Duration,
) -> anyhow::Result<()> {
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        ended = work => ended,
        () = deadline => anyhow::bail!("not drained within {} s; the rest comes back to whoever is next", limit.as_secs()),
    }
}
