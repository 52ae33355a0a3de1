use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::Database;
use crate::bounds::DEAD_CLIENTS;

/// How long a migration waits for a lock before it gives up, to be tried again: whoever comes after it for the same lock
/// waits behind it.
const LOCK_TIMEOUT: &str = "2s";

/// How often a running migration is told of, and its connection watched.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// How long the server may take to accept a connection, and to answer the watch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause before the next try.
const MAX_PAUSE: Duration = Duration::from_secs(2);

impl Database {
    /// Applies the migrations that are missing. It waits for a server that is away, read-only, or held up by others' locks.
    ///
    /// A migration has no statement time-out, because a large table takes as long as it takes; its progress is logged.
    ///
    /// # Errors
    /// When a migration itself fails, which waiting does not cure.
    pub async fn migrate(&self, migrator: &Migrator) -> anyhow::Result<()> {
        let mut pauses = crate::backoff(Duration::from_millis(100), MAX_PAUSE);
        loop {
            match self.try_migrate(migrator).await {
                Ok(()) => break,
                Err(Failure::Passing(error)) => {
                    let pause = pauses.next().unwrap_or(MAX_PAUSE);
                    tracing::warn!(error, pause_ms = pause.as_millis(), "the migrations have to wait");
                    tokio::time::sleep(pause).await;
                }
                Err(Failure::Final(error)) => return Err(error).context("cannot migrate"),
            }
        }
        self.migrated.cancel();
        Ok(())
    }

    async fn try_migrate(&self, migrator: &Migrator) -> Result<(), Failure> {
        let mut connection = self.connect().await?;
        let pid: i32 = answer(sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection)).await?;
        let begun = Instant::now();
        let mut migrating = Box::pin(migrator.run_direct(None, &mut connection, false));
        loop {
            match timeout(PROGRESS_PERIOD, &mut migrating).await {
                Ok(ended) => {
                    ended?;
                    let duration_ms = begun.elapsed().as_millis();
                    tracing::info!(duration_ms, "the database is up to date");
                    return Ok(());
                }
                Err(_elapsed) => {
                    let duration_s = begun.elapsed().as_secs();
                    let doing = self.statement_of(pid).await?;
                    tracing::info!(duration_s, db.statement = doing, "a migration is running");
                }
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let options = self.options.clone().options(DEAD_CLIENTS).options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("lock_timeout", LOCK_TIMEOUT),
        ]);
        answer(PgConnection::connect_with(&options)).await
    }

    /// The beginning of the statement that a server process is executing. A process that has been executing
    /// none for a while has answered, and its answer was lost on the way.
    async fn statement_of(&self, pid: i32) -> Result<String, Failure> {
        const MAX_CHARS: i32 = 100;
        let mut connection = self.connect().await?;
        let statement = answer(
            sqlx::query_scalar(
                "select left(query, $2)
                 from pg_stat_activity
                 where pid = $1 and (state = 'active' or state_change > now() - make_interval(secs => $3))",
            )
            .bind(pid)
            .bind(MAX_CHARS)
            .bind(PROGRESS_PERIOD.as_secs_f64())
            .fetch_optional(&mut connection),
        )
        .await?;
        statement.ok_or_else(|| Failure::Passing("the connection of a migration went silent".to_owned()))
    }
}

enum Failure {
    /// Waiting cures it.
    Passing(String),
    Final(anyhow::Error),
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match &error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) if is_passing(cause) => {
                Self::Passing(error.to_string())
            }
            _ => Self::Final(error.into()),
        }
    }
}

async fn answer<T>(asking: impl Future<Output = sqlx::Result<T>>) -> Result<T, Failure> {
    let answered = timeout(ANSWER_TIMEOUT, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    answered.map_err(|error| Failure::Passing(error.to_string()))
}

/// Whether waiting cures an error: the server was away, read-only or busy, or others were in the way.
pub fn is_passing(error: &sqlx::Error) -> bool {
    error.as_database_error().is_none_or(|error| error.code().is_some_and(|code| is_passing_state(&code)))
}

/// By the SQLSTATE classes of PostgreSQL's appendix A.
fn is_passing_state(sqlstate: &str) -> bool {
    const CONNECTION: &str = "08";
    const READ_ONLY: &str = "25006";
    const ROLLED_BACK: &str = "40";
    const OUT_OF_RESOURCES: &str = "53";
    const NOT_READY: &str = "55";
    const OPERATOR: &str = "57";
    [CONNECTION, READ_ONLY, ROLLED_BACK, OUT_OF_RESOURCES, NOT_READY, OPERATOR]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::is_passing_state;

    #[test]
    fn what_a_server_or_others_cause_passes_and_what_a_statement_or_a_login_causes_does_not() {
        for sqlstate in ["08006", "25006", "40001", "40P01", "53300", "55P03", "57014", "57P01", "57P03"] {
            assert!(is_passing_state(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["22P05", "23505", "25001", "28P01", "3D000", "42501", "42P07", "58030", "XX000"] {
            assert!(!is_passing_state(sqlstate), "{sqlstate}");
        }
    }
}
