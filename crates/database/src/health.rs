use std::time::Duration;

use sqlx::PgConnection;

use crate::{Database, Pool};

/// How long one pool may take to answer. Less than the health check as a whole has.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

impl Database {
    /// Whether both pools reach a database that takes writes and is up to date.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), String> {
        tokio::try_join!(check(&self.pool), check(&self.requests))?;
        if self.migrated.is_cancelled() { Ok(()) } else { Err("not migrated yet".to_owned()) }
    }
}

impl Pool {
    /// Whether it reaches a database that takes writes.
    ///
    /// # Errors
    /// Why not.
    pub async fn check_writable(&self) -> sqlx::Result<()> {
        let mut transaction = self.begin().await?;
        refuse_read_only(&mut transaction).await?;
        transaction.commit().await
    }
}

/// Fails where a transaction may not write.
///
/// # Errors
/// Those of the database; 25006 where it is read-only.
pub async fn refuse_read_only(conn: &mut PgConnection) -> sqlx::Result<()> {
    // PostgreSQL refuses this where it is read-only, though no row is meant, and writes nothing where it is not.
    sqlx::query("update _sqlx_migrations set success = success where false").execute(conn).await?;
    Ok(())
}

async fn check(pool: &Pool) -> Result<(), String> {
    const UNDEFINED_TABLE: &str = "42P01";
    let checked = match tokio::time::timeout(ANSWER_TIMEOUT, pool.check_writable()).await {
        Ok(checked) => checked,
        // All are in use, and it is their turn that is waited for.
        Err(_elapsed) if pool.moved_within(ANSWER_TIMEOUT) => Ok(()),
        Err(_elapsed) => Err(sqlx::Error::PoolTimedOut),
    };
    match checked {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => {
            Err("not migrated yet".to_owned())
        }
        checked => checked.map_err(|error| error.to_string()),
    }
}
