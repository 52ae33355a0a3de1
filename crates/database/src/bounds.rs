use std::time::Duration;

use clap::Args;
use sqlx::postgres::PgConnectOptions;

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
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT_SECONDS", default_value_t = 10)]
    pub database_statement_timeout_seconds: u64,

    /// How long a statement may wait for a lock, in seconds.
    #[arg(long, env = "DATABASE_LOCK_TIMEOUT_SECONDS", default_value_t = 5)]
    pub database_lock_timeout_seconds: u64,

    /// How long the server may hear nothing of a client that has a transaction open, in seconds. A client whose network has
    /// gone silent holds its locks for so long.
    #[arg(long, env = "DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", default_value_t = 12)]
    pub database_idle_in_transaction_timeout_seconds: u64,
}

/// How long a statement waits for a row that another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// As long as [`Bounds`] allow.
    Usual,
    /// 50 ms: long enough for another transaction to end, and not for one that somebody has left open.
    Brief,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            database_max_connections: 20,
            database_acquire_timeout_seconds: 5,
            database_statement_timeout_seconds: 10,
            database_lock_timeout_seconds: 5,
            database_idle_in_transaction_timeout_seconds: 12,
        }
    }
}

impl Bounds {
    pub(crate) fn acquire_timeout(&self) -> Duration {
        Duration::from_secs(self.database_acquire_timeout_seconds)
    }

    /// Has the server enforce the bounds on each connection, also when the client is gone.
    pub(crate) fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        let seconds = |seconds: u64| format!("{seconds}s");
        options
            .options([
                ("statement_timeout", seconds(self.database_statement_timeout_seconds)),
                ("lock_timeout", seconds(self.database_lock_timeout_seconds)),
                ("idle_in_transaction_session_timeout", seconds(self.database_idle_in_transaction_timeout_seconds)),
            ])
            .options(DEAD_CLIENTS)
    }
}

/// Has the server notice a client that is gone: one that closed its connection while a statement runs within 2 s, one that
/// answers nothing within 15 to 25 s. Until then its statement keeps its locks.
pub(crate) const DEAD_CLIENTS: [(&str, &str); 5] = [
    ("client_connection_check_interval", "2s"),
    ("tcp_user_timeout", "15s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];
