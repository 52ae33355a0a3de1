use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::managed::Object;
use futures::FutureExt;
use sqlx::{Connection as _, Executor, PgConnection, Row};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::pool::Pooled;

/// How long the server may take to roll a transaction back before its connection is closed instead.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that nobody else has. Dropped, it goes back to the pool if it is idle, and is closed if it is not.
#[derive(Debug)]
pub struct Connection(Option<Pooled>);

impl Connection {
    pub(crate) fn of(object: Pooled) -> Self {
        Self(Some(object))
    }

    /// Closes it, for a user whose statement failed in a way that may be the connection's fault.
    pub fn close(mut self) {
        close(self.0.take());
    }

    fn object(&mut self) -> &mut Pooled {
        self.0.as_mut().unwrap_or_else(|| unreachable!("{GONE}"))
    }
}

const GONE: &str = "a connection is taken only by what drops the guard";

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().unwrap_or_else(|| unreachable!("{GONE}"))
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.object()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut object) = self.0.take() else { return };
        if is_idle(&mut object) {
            Object::pool(&object).inspect(|pool| pool.manager().came_back());
        } else {
            close(Some(object));
        }
    }
}

/// Whether every statement that was sent is answered, by the protocol's ReadyForQuery: then there is nothing to flush.
fn is_idle(connection: &mut PgConnection) -> bool {
    matches!(connection.flush().now_or_never(), Some(Ok(())))
}

/// Closes the socket at once. The server rolls back, as soon as it notices.
fn close(object: Option<Pooled>) {
    if let Some(object) = object {
        metrics::counter!("database_connections_closed_total").increment(1);
        drop(Object::take(object));
    }
}

/// A transaction. Dropped without [`commit`](Self::commit), it is rolled back before anybody else gets its connection, or
/// the connection is closed.
#[derive(Debug)]
pub struct Transaction(Option<Connection>);

impl Transaction {
    pub(crate) async fn begin(connection: Connection) -> sqlx::Result<Self> {
        // From here on the guard assumes that a transaction is open, whether BEGIN arrives or not.
        let mut transaction = Self(Some(connection));
        (&mut *transaction).execute("begin").await?;
        Ok(transaction)
    }

    /// Commits. When this fails, or is dropped before it returns, it is unknown whether the effect is stored.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        (&mut *self).execute("commit").await?;
        drop(self.0.take());
        Ok(())
    }

    /// Rolls back, and returns when that is done.
    pub async fn rollback(mut self) {
        if let Some(connection) = self.0.take() {
            roll_back(connection).await;
        }
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().unwrap_or_else(|| unreachable!("{GONE}"))
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().unwrap_or_else(|| unreachable!("{GONE}"))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        match Handle::try_current() {
            Ok(runtime) if is_idle(&mut connection) => drop(runtime.spawn(roll_back(connection))),
            // In the middle of a statement, or at the end of the program.
            _ => connection.close(),
        }
    }
}

/// Ends the transaction on a connection, or closes the connection. A server that has become read-only, as after a
/// failover, stays so for the connections there are; they are closed, and new ones find the server that takes writes.
async fn roll_back(mut connection: Connection) {
    let rolling_back = (&mut *connection).fetch_one("rollback; select current_setting('transaction_read_only')");
    match timeout(ROLLBACK_TIMEOUT, rolling_back).await.map(|row| row.and_then(|row| row.try_get::<String, _>(0))) {
        Ok(Ok(read_only)) if read_only == "off" => drop(connection),
        Ok(Ok(_)) => {
            Object::pool(connection.object()).inspect(|pool| pool.manager().distrust());
            connection.close();
        }
        _ => connection.close(),
    }
}
