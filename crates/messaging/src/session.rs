//! The life of a connection: connect, declare, work; on any error pause and do all of it again.

use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use database::stopped_within;
use futures::future::BoxFuture;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionBuilder, ConnectionProperties, ConnectionStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a broker may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an attempt to connect is waited for before it is given up. lapin keeps a thread for each attempt until its socket
/// fails, and so a broker that is frozen must not cost one every few seconds; but an attempt that was reset in the middle of
/// the handshake may never end.
const MAX_WAITS: u32 = 3;

/// How long a broker may take to answer one request; declaring a quorum queue takes it longest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a session may go on once the service is to stop, whatever it waits for. Less than a service has to drain, and
/// more than its work takes, which is bounded by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a broker may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection whose other end is gone without a word is given up after two of these, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// A session that lasted this long was a good one: the next pause is a short one again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Where the broker is, and how the connection to it stands.
#[derive(Clone)]
pub struct Broker {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    name: &'static str,
    /// The connection of a session that works, or why there is none.
    session: watch::Sender<Result<ConnectionStatus, String>>,
}

/// Without the URL, because it holds a password.
impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a service does with a connection to the broker.
pub trait Work: Sync {
    /// Declares what it needs, then works until the connection breaks or it is told to stop.
    fn session(&self, connection: &Connection) -> impl Future<Output = anyhow::Result<()>> + Send;
}

impl Broker {
    /// A broker by its `amqp://` or `amqps://` URL. `name` is how the connection is called in the management UI.
    ///
    /// # Errors
    /// When the URL is none; the message does not contain it, because it holds a password.
    pub fn new(url: &str, name: &'static str) -> Result<Self, String> {
        let mut uri: AMQPUri = url.parse().map_err(|error| format!("not an amqp URL: {error}"))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let (session, _) = watch::channel(Err("not connected yet".into()));
        Ok(Self { uri, tls: OwnedTLSConfig::default(), name, session })
    }

    /// Over TLS, the broker's certificate may be of one of the authorities in `pem`, too, and not only of a public one.
    #[must_use]
    pub fn trusting(mut self, pem: Option<&str>) -> Self {
        self.tls.cert_chain = pem.map(str::to_owned);
        self
    }

    /// Whether a session works, with all it needs declared.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        match &*self.session.borrow() {
            Ok(status) if is_blocked(status) => Err("blocked by the broker, which is short of memory or disk".into()),
            Ok(status) if !status.connected() => Err("the connection is lost".into()),
            Ok(_) => Ok(()),
            Err(reason) => Err(reason.clone()),
        }
    }

    /// To be called by the work of a session once all it needs is declared.
    pub fn ready(&self, connection: &Connection) {
        // What it was before is told of by then.
        drop(self.session.send_replace(Ok(connection.status().clone())));
    }

    /// Opens one connection, for tools that need no session.
    ///
    /// # Errors
    /// When the broker is away, refuses, or takes more than 10 seconds.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.open());
        Ok(connecting.await.context("the broker does not answer")??)
    }

    fn open(&self) -> impl Future<Output = lapin::Result<Connection>> + Send + 'static {
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        let (uri, tls) = (self.uri.clone(), self.tls.clone());
        async move {
            let connection = ConnectionBuilder::new()?.with_uri(uri).with_properties(properties);
            connection.with_tls_config(tls).connect().await
        }
    }

    /// Runs `work` on a connection until `shutdown`, beginning anew with a growing pause whenever it fails.
    ///
    /// After `shutdown` the work is to finish what it has begun and return.
    pub async fn run(&self, shutdown: &CancellationToken, work: &impl Work) {
        let mut pauses = pauses();
        let (mut connecting, mut waits) = (None, 0);
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            let attempt = connecting.get_or_insert_with(|| Box::pin(self.open()));
            let connected = shutdown.run_until_cancelled(tokio::time::timeout(CONNECT_TIMEOUT, attempt)).await;
            let ended = match connected {
                None => break,
                Some(Err(_elapsed)) => {
                    waits += 1;
                    if waits == MAX_WAITS {
                        (connecting, waits) = (None, 0);
                    }
                    Err(anyhow::anyhow!("the broker does not answer"))
                }
                Some(Ok(connected)) => {
                    (connecting, waits) = (None, 0);
                    match connected {
                        Ok(connection) => self.work_on(connection, work, shutdown).await,
                        Err(error) => Err(error.into()),
                    }
                }
            };
            if shutdown.is_cancelled() {
                break;
            }
            let reason =
                ended.err().map_or_else(|| "the work ended by itself".to_owned(), |error| format!("{error:#}"));
            if begun.elapsed() >= STABLE_AFTER {
                pauses = self::pauses();
            }
            let pause = pauses.next().unwrap_or(MAX_PAUSE);
            let pause_ms = pause.as_millis();
            tracing::warn!(broker.error = reason, pause_ms, "the broker session ended; beginning anew");
            drop(self.session.send_replace(Err(reason)));
            shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        drop(self.session.send_replace(Err("shut down".into())));
    }

    async fn work_on(
        &self,
        connection: Connection,
        work: &impl Work,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let ended = stopped_within(STOP_TIMEOUT, shutdown, work.session(&connection)).await;
        let ended =
            ended.with_context(|| format!("the session did not end within {} s", STOP_TIMEOUT.as_secs())).flatten();
        const SUCCESS: u16 = 200;
        // A connection that failed is closed already, and its error is the one to tell.
        tokio::time::timeout(CLOSE_TIMEOUT, connection.close(SUCCESS, "bye".into())).await.ok();
        ended
    }
}

/// Runs two parts of a session side by side. When one fails, `ending` is cancelled, and the other is waited for: it ends at
/// the next point where it has nothing half done, and is never dropped in between.
///
/// # Errors
/// The error of the part that failed first.
pub async fn both(
    ending: &CancellationToken,
    one: BoxFuture<'_, anyhow::Result<()>>,
    other: BoxFuture<'_, anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let first = OnceLock::new();
    let failed = |error| {
        ending.cancel();
        first.set(error).ok();
    };
    let one = async { one.await.unwrap_or_else(failed) };
    let other = async { other.await.unwrap_or_else(failed) };
    tokio::join!(one, other);
    first.into_inner().map_or(Ok(()), Err)
}

/// Waits for the broker's answer to a request, but not for ever: a quorum queue that has lost its leader gives none.
pub(crate) async fn answered<T>(
    connection: &Connection,
    request: impl Future<Output = lapin::Result<T>>,
) -> anyhow::Result<T> {
    let answer = unless_blocked(connection.status(), ANSWER_TIMEOUT, request).await;
    Ok(answer.with_context(|| format!("the broker did not answer within {} s", ANSWER_TIMEOUT.as_secs()))??)
}

/// Whether the broker says on a connection that it is short of memory or disk. It reads nothing from it then, and lapin writes
/// nothing to it.
pub(crate) fn is_blocked(connection: &ConnectionStatus) -> bool {
    connection.blocked() && connection.connected()
}

/// Waits at most `limit` for the broker, and `None` is beyond it.
///
/// While the broker [blocks](is_blocked) the connection, the wait goes on: on another connection it would take nothing either.
/// When it unblocks the connection, the limit begins anew.
pub(crate) async fn unless_blocked<T>(
    connection: &ConnectionStatus,
    limit: Duration,
    waiting: impl Future<Output = T>,
) -> Option<T> {
    wait_unless(|| is_blocked(connection), limit, waiting).await
}

async fn wait_unless<T>(is_blocked: impl Fn() -> bool, limit: Duration, waiting: impl Future<Output = T>) -> Option<T> {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let mut waiting = pin!(waiting);
    let mut left = limit;
    while !left.is_zero() {
        let slice = left.min(LOOK_EVERY);
        if let Ok(done) = tokio::time::timeout(slice, waiting.as_mut()).await {
            return Some(done);
        }
        left = if is_blocked() { limit } else { left - slice };
    }
    None
}

/// Short, because a message that ends each session it is in stops its queue until the broker dead-letters it at the
/// delivery limit. Jitter makes it up to twice as long.
const MAX_PAUSE: Duration = Duration::from_millis(500);

fn pauses() -> impl Iterator<Item = Duration> {
    database::backoff(Duration::from_millis(100), MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_begins_anew_when_the_connection_is_blocked_no_more() {
        const LIMIT: Duration = Duration::from_secs(15);
        let begun = Instant::now();
        let blocked_for = |limit| move || begun.elapsed() < limit;
        assert_eq!(wait_unless(blocked_for(Duration::ZERO), LIMIT, pending::<()>()).await, None);
        assert_eq!(begun.elapsed(), LIMIT);

        let begun = Instant::now();
        // Blocked until just before the limit would be over.
        let is_blocked = move || begun.elapsed() < LIMIT - Duration::from_secs(1);
        assert_eq!(wait_unless(is_blocked, LIMIT, sleep(LIMIT + LIMIT / 2)).await, Some(()));
        assert_eq!(wait_unless(|| false, LIMIT, sleep(LIMIT / 2)).await, Some(()));
    }
}
