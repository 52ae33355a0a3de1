use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::{Bounds, Connection, LockWait, Transaction};

/// A connection that was handed out so recently is taken to be alive: to ping it each time would double the round trips of
/// a small statement. No server restarts as quickly, so nobody gets a connection from before a restart.
const TRUSTED_IDLE: Duration = Duration::from_millis(100);

/// How long an idle connection may take to show that it is alive. Less than health waits for a pool: a ping that is given up
/// with its user says nothing about the other connections, and health would meet one silent connection after the other.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is replaced after this long, so that after a failover all of them move, and the server gets memory back.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// A connection that nobody used for this long is closed.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);

/// Connections to one database, each handed to one user at a time.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: managed::Pool<Manager>,
    acquire_timeout: Duration,
}

impl Pool {
    /// A pool of at most `max_connections`, which connects when it is first asked.
    pub fn new(options: PgConnectOptions, max_connections: usize, bounds: &Bounds) -> Self {
        let manager = Manager { options, state: Mutex::default() };
        let config = managed::PoolConfig {
            max_size: max_connections,
            // The most recently used first, so that a burst leaves connections that nobody uses, and they are closed.
            queue_mode: QueueMode::Lifo,
            timeouts: managed::Timeouts::default(),
        };
        let connections = managed::Pool::builder(manager).config(config).build();
        // It fails only if time-outs are set without a runtime.
        let connections = connections.unwrap_or_else(|error| unreachable!("{error}"));
        Self { connections, acquire_timeout: bounds.acquire_timeout() }
    }

    /// An idle connection, for reading.
    ///
    /// Statements commit one by one. What writes belongs into [`begin`](Self::begin): a transaction notices a server that
    /// has become read-only, and closes the connection to it.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] when none is free, or no new one is made, within the acquire time-out; the error of
    /// the server when it refuses.
    pub async fn acquire(&self) -> sqlx::Result<Connection> {
        self.close_unused();
        let acquired = timeout(self.acquire_timeout, self.connections.get()).await;
        let object = acquired.map_err(|_elapsed| sqlx::Error::PoolTimedOut)?.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => sqlx::Error::PoolTimedOut,
            other => sqlx::Error::Protocol(other.to_string()),
        })?;
        Ok(Connection::of(object))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), and those of the server.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        Transaction::begin(self.acquire().await?).await
    }

    /// Begins a transaction that waits so long for locks.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub async fn begin_with(&self, locks: LockWait) -> sqlx::Result<Transaction> {
        let mut tx = self.begin().await?;
        if locks == LockWait::Brief {
            sqlx::query("set local lock_timeout = '50ms'").execute(&mut *tx).await?;
        }
        Ok(tx)
    }

    /// Whether some user gave its connection back so recently: then users who wait will have theirs.
    pub(crate) fn moved_within(&self, limit: Duration) -> bool {
        self.connections.manager().state().came_back.is_some_and(|at| at.elapsed() < limit)
    }

    fn close_unused(&self) {
        if self.connections.manager().state().is_cleanup_due() {
            drop(self.connections.retain(|_, metrics| metrics.last_used() < MAX_IDLE));
        }
    }
}

/// Makes connections, and tests them before they are handed out again.
#[derive(Debug)]
pub(crate) struct Manager {
    options: PgConnectOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that were last handed out before this are not tested any more, but closed.
    distrusted_before: Option<Instant>,
    /// When a connection last came back idle.
    came_back: Option<Instant>,
    cleaned_up: Option<Instant>,
}

impl State {
    const CLEANUP_PERIOD: Duration = Duration::from_secs(60);

    fn is_cleanup_due(&mut self) -> bool {
        let due = self.cleaned_up.is_none_or(|at| at.elapsed() >= Self::CLEANUP_PERIOD);
        if due {
            self.cleaned_up = Some(Instant::now());
        }
        due
    }
}

impl Manager {
    /// Closes, instead of testing, every connection that was last handed out before now: one of them showed that the
    /// server or the way to it is not what it was, and to find that out of each would take as long again.
    pub(crate) fn distrust(&self) {
        self.state().distrusted_before = Some(Instant::now());
    }

    /// A connection came back idle.
    pub(crate) fn came_back(&self) {
        self.state().came_back = Some(Instant::now());
    }

    fn is_distrusted(&self, metrics: &Metrics) -> bool {
        let last_used = metrics.recycled.unwrap_or(metrics.created);
        self.state().distrusted_before.is_some_and(|before| last_used < before)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl managed::Manager for Manager {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<PgConnection> {
        let connecting = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options)).await;
        connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if self.is_distrusted(metrics) || metrics.age() >= MAX_AGE {
            return Err(RecycleError::message("to be replaced"));
        }
        if metrics.last_used() < TRUSTED_IDLE {
            return Ok(());
        }
        match timeout(PING_TIMEOUT, connection.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.distrust();
                Err(RecycleError::Backend(error))
            }
            Err(_elapsed) => {
                self.distrust();
                Err(RecycleError::message("no answer"))
            }
        }
    }
}

/// A connection of the pool, as the library knows it.
pub(crate) type Pooled = Object<Manager>;
