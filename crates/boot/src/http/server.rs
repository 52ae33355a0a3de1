//! Connections of clients: so many at once, each for as long as it is used.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{edge, tls};
use crate::client::ClientAddress;
use crate::config::Http;

/// Pause after a connection could not be taken, for want of file descriptors, so that others may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a service serves, before it listens.
pub struct Server {
    config: Http,
    http: http1::Builder,
    tls: Option<TlsAcceptor>,
    room: Arc<Semaphore>,
}

/// A connection that was taken, and its place among those there may be at once.
struct Accepted {
    stream: TcpStream,
    peer: IpAddr,
    place: OwnedSemaphorePermit,
}

type Routes = TowerToHyperService<Router>;

impl Server {
    /// One that does as configured.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used.
    pub fn new(config: &Http) -> anyhow::Result<Self> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(config.http_head_timeout_seconds));
        let tls = match (&config.tls_cert_file, &config.tls_key_file) {
            (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
            (None, None) => None,
            _ => anyhow::bail!("TLS_CERT_FILE and TLS_KEY_FILE are set together or not at all"),
        };
        let room = Arc::new(Semaphore::new(usize::try_from(config.http_max_connections)?));
        Ok(Self { config: config.clone(), http, tls, room })
    }

    /// Serves until `shutdown`, then finishes the requests that have begun.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(self, listener: TcpListener, router: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
        tracing::info!(http.address = %listener.local_addr()?, http.tls = self.tls.is_some(), "listening");
        let routes = TowerToHyperService::new(edge::guard(router, &self.config));
        let (server, connections) = (Arc::new(self), TaskTracker::new());
        while let Some(accepted) = shutdown.run_until_cancelled(server.accept(&listener)).await {
            // A token of its own each, because a token is locked whenever something happens on the connection.
            let (server, routes, shutdown) = (Arc::clone(&server), routes.clone(), shutdown.child_token());
            let accepted = accepted?;
            connections.spawn(async move { server.converse(accepted, routes, &shutdown).await });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
        Ok(())
    }

    /// Waits for room, then for a client: those that find no room wait in the listener's queue.
    async fn accept(&self, listener: &TcpListener) -> anyhow::Result<Accepted> {
        let place = Arc::clone(&self.room).acquire_owned().await.context("the server has ended")?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // What hyper writes is whole; to wait for more would only delay it.
                    stream.set_nodelay(true).ok();
                    return Ok(Accepted { stream, peer: peer.ip(), place });
                }
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn converse(&self, accepted: Accepted, routes: Routes, shutdown: &CancellationToken) {
        let Accepted { stream, peer, place } = accepted;
        match &self.tls {
            None => self.answer(stream, peer, routes, shutdown).await,
            Some(acceptor) => {
                if let Some(Some(stream)) = shutdown.run_until_cancelled(tls::handshake(acceptor, stream)).await {
                    self.answer(stream, peer, routes, shutdown).await;
                }
            }
        }
        drop(place);
    }

    /// Answers what is asked on one connection; after `shutdown` no more than has begun.
    async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: IpAddr,
        routes: Routes,
        shutdown: &CancellationToken,
    ) {
        let service = service_fn(|mut request: Request<Incoming>| {
            let header = self.config.client_address_header.as_ref();
            let client = ClientAddress::of(peer, request.headers(), header);
            request.extensions_mut().insert(client);
            routes.call(request)
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A client that breaks off, is too slow, or speaks no HTTP.
            tracing::debug!(error = %error, "a connection ended early");
        }
    }
}

/// Whether a client gave up before it was taken, which is no fault of the listener.
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
