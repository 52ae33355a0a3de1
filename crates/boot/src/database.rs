//! A service's PostgreSQL database: connected to when it is there, migrated, and never waited for without a bound.

use std::time::Duration;

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

/// The bounds on what a service may ask of its database.
#[derive(Debug, Clone, Args)]
pub struct Bounds {
    /// The most connections of one instance for requests; the work in the background has a few of its own.
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 20)]
    pub database_max_connections: u32,

    /// How long a request waits for a free connection, in seconds.
    #[arg(long, env = "DATABASE_ACQUIRE_TIMEOUT_SECONDS", default_value_t = 5)]
    pub database_acquire_timeout_seconds: u64,

    /// How long a statement may run, in seconds. More than the lock time-out, so that waiting is told from working.
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT_SECONDS", default_value_t = 30)]
    pub database_statement_timeout_seconds: u64,

    /// How long a statement may wait for a lock, in seconds.
    #[arg(long, env = "DATABASE_LOCK_TIMEOUT_SECONDS", default_value_t = 10)]
    pub database_lock_timeout_seconds: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            database_max_connections: 20,
            database_acquire_timeout_seconds: 5,
            database_statement_timeout_seconds: 30,
            database_lock_timeout_seconds: 10,
        }
    }
}

/// A service's database.
#[derive(Debug, Clone)]
pub struct Database {
    /// For the work in the background. Like the other it connects when it is first asked, so that a service can start
    /// before its database.
    pub pool: PgPool,
    /// For requests: however many there are, the work goes on.
    pub requests: PgPool,
    migrated: CancellationToken,
}

impl Database {
    /// The database at a postgres:// URL, to which the service is known as `app`.
    ///
    /// # Errors
    /// When the URL is none; the message does not contain it, because it holds a password.
    pub fn open(url: &SecretString, app: &str, bounds: &Bounds) -> anyhow::Result<Self> {
        let seconds = |seconds: u64| format!("{seconds}s");
        let options: PgConnectOptions = url.expose_secret().parse().ok().context("not a postgres URL")?;
        let options = options.application_name(app).options([
            ("statement_timeout", seconds(bounds.database_statement_timeout_seconds)),
            ("lock_timeout", seconds(bounds.database_lock_timeout_seconds)),
            ("idle_in_transaction_session_timeout", seconds(2 * bounds.database_statement_timeout_seconds)),
        ]);
        let pool = |max_connections, options| {
            PgPoolOptions::new()
                .max_connections(max_connections)
                .acquire_timeout(Duration::from_secs(bounds.database_acquire_timeout_seconds))
                // A ping at each use would double the round trips of a small statement.
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for >= TRUSTED_IDLE {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .connect_lazy_with(options)
        };
        let (pool, requests) = (
            pool(WORK_CONNECTIONS, options.clone().options(WORK_PLANS)),
            pool(bounds.database_max_connections, options),
        );
        Ok(Self { pool, requests, migrated: CancellationToken::new() })
    }

    /// Brings it up to date, waiting for it to be there.
    ///
    /// # Errors
    /// When a migration itself fails, which waiting does not mend.
    pub async fn migrate(&self, migrator: &Migrator) -> anyhow::Result<()> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(MAX_PAUSE)
            .without_max_times()
            .build();
        loop {
            let error = match self.pool.acquire().await.map(drop) {
                Ok(()) => match migrator.run(&self.pool).await {
                    Err(error) if is_servers_fault(&error) => error.to_string(),
                    ended => {
                        ended.context("cannot migrate")?;
                        self.migrated.cancel();
                        return Ok(());
                    }
                },
                Err(error) => error.to_string(),
            };
            let pause = pauses.next().unwrap_or(MAX_PAUSE);
            tracing::warn!(error, pause_ms = pause.as_millis(), "waiting for the database");
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether it answers, and is up to date.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), String> {
        sqlx::query("select 1").execute(&self.pool).await.map_err(|error| error.to_string())?;
        if self.migrated.is_cancelled() { Ok(()) } else { Err("not migrated yet".to_owned()) }
    }
}

/// What the consumers, the relay and the sweeper of one instance use at once, and one to spare for health.
const WORK_CONNECTIONS: u32 = 6;

/// A connection that was used so recently is taken to be alive. No server restarts as quickly, so that whoever comes after
/// a restart is given none that is gone.
const TRUSTED_IDLE: Duration = Duration::from_millis(100);

/// How the statements of the work in the background are planned: once each, at the first use, and by their keys. Left to
/// itself the planner takes what is best for the table of that moment, which may be nearly empty, and reads it from end to
/// end for each batch until autovacuum next looks, however many rows there are by then.
const WORK_PLANS: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// The longest pause before the database is looked for again.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Whether a migration was stopped by the server going away or being busy, rather than by itself.
fn is_servers_fault(error: &MigrateError) -> bool {
    const CONNECTION: &str = "08";
    const OUT_OF_RESOURCES: &str = "53";
    const NOT_READY: &str = "55";
    const OPERATOR: &str = "57";
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    let passing =
        |code: &str| [CONNECTION, OUT_OF_RESOURCES, NOT_READY, OPERATOR].iter().any(|class| code.starts_with(class));
    error.as_database_error().is_none_or(|error| error.code().is_some_and(|code| passing(&code)))
}
