//! A service's PostgreSQL database: its connections, transactions, migrations and health.
//!
//! In reading order: [`Pool`] hands out connections, [`Transaction`] begins and commits, [`Bounds`] limits every wait,
//! [`repeat`] runs background work, [`Failures`] tells health which of it fails, [`migrate`](Database::migrate) brings the
//! schema up to date, [`check`](Database::check) tells whether writes work.
//!
//! **Architecture invariant:** a connection in the pool is idle: no statement is unanswered, and no transaction is open.
//! A guard that is dropped in the middle of a statement closes its connection, so that whatever is dropped at an `await`
//! (by a client that hangs up, a time-out, a session that ends) leaves nothing behind for the next user.

mod bounds;
mod connection;
mod failures;
mod health;
mod migrations;
mod pool;
mod work;

pub use bounds::{Bounds, LockWait};
pub use connection::{Connection, Transaction};
pub use failures::Failures;
pub use health::refuse_read_only;
pub use migrations::is_passing;
pub use pool::Pool;
pub use work::{DELETED_AT_ONCE, WORK_TIMEOUT, backoff, bounded, repeat, stopped_within};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

/// A service's database.
#[derive(Debug, Clone)]
pub struct Database {
    /// For background work: consumers, the relay and periodic tasks. It connects at the first use, so that a service can
    /// start before its database.
    pub pool: Pool,
    /// For requests. Separate, so that any number of requests leaves connections for background work.
    pub requests: Pool,
    options: PgConnectOptions,
    migrated: CancellationToken,
}

impl Database {
    /// The database at a `postgres://` URL, to which the service is known as `app`.
    ///
    /// # Errors
    /// When the URL is invalid; the message does not contain the URL, because it holds a password.
    pub fn open(url: &SecretString, app: &str, bounds: &Bounds) -> anyhow::Result<Self> {
        let options: PgConnectOptions = url.expose_secret().parse().ok().context("not a postgres URL")?;
        let options = options.application_name(app);
        let bounded = bounds.apply(options.clone());
        let (pool, requests) = (
            Pool::new(bounded.clone().options(BACKGROUND_PLANS), BACKGROUND_CONNECTIONS, bounds),
            Pool::new(bounded, bounds.database_max_connections as usize, bounds),
        );
        Ok(Self { pool, requests, options, migrated: CancellationToken::new() })
    }
}

/// What the consumers, the relay and the periodic tasks of one instance use at once, and one for the health check.
const BACKGROUND_CONNECTIONS: usize = 8;

/// Makes PostgreSQL plan each background statement once, at the first use, and by keys. By default the planner optimizes
/// for the table of that moment, which may be nearly empty, and then reads the whole table for each batch until autovacuum
/// next runs, however many rows there are by then.
const BACKGROUND_PLANS: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];
