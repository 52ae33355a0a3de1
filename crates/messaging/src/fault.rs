use std::any::Any;

/// Why a batch could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A server is away or busy: the same batch will pass later.
    #[error("{0:#}")]
    Server(anyhow::Error),
    /// It took too long: a smaller batch may pass, and a single message will pass later.
    #[error("{0:#}")]
    TimedOut(anyhow::Error),
    /// Somebody else has locked a row that some message in it needs, and does not let go: the others may pass.
    #[error("{0:#}")]
    Locked(anyhow::Error),
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
        const CANCELLED: &str = "57014";
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        let code = error.as_database_error().map(sqlx::error::DatabaseError::code);
        let sticks = match (&error, &code) {
            (_, Some(Some(code))) if code == CANCELLED => return Self::TimedOut(error.into()),
            (_, Some(Some(code))) if code == LOCK_NOT_AVAILABLE => return Self::Locked(error.into()),
            (_, Some(code)) => code.as_deref().is_none_or(is_messages_fault),
            (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_), None) => true,
            _ => false,
        };
        if sticks { Self::Sticky(error.into()) } else { Self::Server(error.into()) }
    }
}

/// Whether what is in a message can be the cause, by the SQLSTATE classes of PostgreSQL's appendix A. Everything else is
/// the server's: our statements are static, so even a column that does not exist (42703) is a migration that has yet to
/// come, and waiting mends it.
fn is_messages_fault(sqlstate: &str) -> bool {
    const CARDINALITY: &str = "21";
    const DATA: &str = "22";
    const CONSTRAINT: &str = "23";
    const TOO_LARGE: &str = "54";
    const RAISED: &str = "P0";
    // The others of its class are corrupted data and indexes.
    const INTERNAL: &str = "XX000";
    [CARDINALITY, DATA, CONSTRAINT, TOO_LARGE, RAISED, INTERNAL].iter().any(|class| sqlstate.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::is_messages_fault;

    #[test]
    fn only_what_a_message_can_cause_is_its_fault() {
        for sqlstate in [
            "08006", "25006", "25P03", "28P01", "40P01", "42501", "42703", "42P01", "53300", "55P03", "57014", "57P01",
            "58030", "XX001", "XX002",
        ] {
            assert!(!is_messages_fault(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["22P05", "23505", "23514", "XX000"] {
            assert!(is_messages_fault(sqlstate), "{sqlstate}");
        }
    }
}
