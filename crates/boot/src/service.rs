//! A running service: it listens at once, works, and ends in order.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Process;
use crate::http::Server;
use crate::shutdown;

/// A service that has been started.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when the service has.
    pub ended: JoinHandle<anyhow::Result<()>>,
}

/// Listens, and serves `routes` for as long as there is `work`.
///
/// After `shutdown` the work is to finish what it has begun. Requests are answered until it has, so that health tells
/// of the draining; all of it takes no longer than the configured time.
///
/// # Errors
/// When the port is taken, or the certificate cannot be used.
pub async fn start(
    process: &Process,
    port: u16,
    routes: Router,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    // It holds all that a service ever does at once, and moving it again and again overflows the stack of a test's thread.
    let work = Box::pin(work);
    let server = Server::new(&process.http)?;
    let listener = TcpListener::bind((process.bind_address, port)).await.context("cannot listen")?;
    let address = listener.local_addr()?;
    let worked = CancellationToken::new();
    let serving = server.serve(listener, routes, worked.clone());
    let whole = async move {
        let work = async {
            let ended = work.await;
            tracing::info!("all work is finished");
            worked.cancel();
            ended
        };
        tokio::try_join!(work, serving).map(|_| ())
    };
    let limit = Duration::from_secs(process.drain_timeout_seconds);
    let ended = tokio::spawn(async move { shutdown::bounded(whole, &shutdown, limit).await });
    Ok(Running { address, ended })
}
