use std::any::Any;

/// Why a batch could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A server is away or busy: the same batch will pass later.
    #[error("{0:#}")]
    Server(anyhow::Error),
    /// It fails again and again: some message in it is the cause.
    #[error("{0:#}")]
    Sticky(anyhow::Error),
}

impl Fault {
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::Sticky(anyhow::anyhow!("panicked: {text}"))
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Sticky(error.into())
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let server = match &error {
            sqlx::Error::Database(database) => database.code().is_some_and(|code| is_servers_fault(&code)),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            _ => false,
        };
        if server { Self::Server(error.into()) } else { Self::Sticky(error.into()) }
    }
}

/// By the SQLSTATE classes of PostgreSQL's appendix A. A statement that runs into `statement_timeout` (57014) sticks:
/// a smaller batch may pass. One that runs into `lock_timeout` (55P03) is waited for. 42P01 and 3D000 are a database
/// whose migrations have yet to run.
fn is_servers_fault(sqlstate: &str) -> bool {
    const CONNECTION: &str = "08";
    const NOT_LOGGED_IN: &str = "28";
    const ROLLED_BACK: &str = "40";
    const OUT_OF_RESOURCES: &str = "53";
    const NOT_READY: &str = "55";
    const OPERATOR: &str = "57";
    const SYSTEM: &str = "58";
    match sqlstate {
        "57014" => false,
        "42P01" | "3D000" | "25006" => true,
        _ => [CONNECTION, NOT_LOGGED_IN, ROLLED_BACK, OUT_OF_RESOURCES, NOT_READY, OPERATOR, SYSTEM]
            .iter()
            .any(|class| sqlstate.starts_with(class)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_servers_fault;

    #[test]
    fn only_what_may_pass_later_is_tried_again() {
        for sqlstate in ["08006", "28P01", "40001", "40P01", "53300", "55P03", "57P01", "58030", "42P01", "25006"] {
            assert!(is_servers_fault(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["57014", "23505", "23514", "22P05", "42601", "XX000"] {
            assert!(!is_servers_fault(sqlstate), "{sqlstate}");
        }
    }
}
