use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use trace::Trace;
use uuid::Uuid;

use super::Role;

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "account_change", rename_all = "snake_case")]
pub enum Change {
    /// It was opened.
    Registered,
    /// It has another password.
    PasswordChanged,
    /// It has another role.
    RoleChanged,
    /// It may not be used any more.
    Disabled,
    /// It may be used again.
    Enabled,
    /// One of its refresh tokens was used twice, and the session ended.
    SessionStolen,
}

/// One thing that happened to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Grows from one to the next.
    pub id: i64,
    /// The account.
    pub user_id: Uuid,
    /// What happened.
    pub change: Change,
    /// The role after it, where that changed.
    pub role: Option<Role>,
    /// Who did it; `None` where nobody did.
    pub actor_id: Option<Uuid>,
    /// The trace it happened in.
    pub trace_id: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Writes down what happened to an account.
///
/// # Errors
/// Those of the database.
pub async fn record(
    conn: &mut PgConnection,
    user_id: Uuid,
    change: Change,
    role: Option<Role>,
    actor_id: Option<Uuid>,
    trace: Trace,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into account_changes (user_id, change, role, actor_id, trace_id)
         values ($1, $2, $3, $4, $5)",
        user_id,
        change as Change,
        role as Option<Role>,
        actor_id,
        trace.to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What happened to one account or to all, the newest first; `before` is the id of the one they come after.
///
/// # Errors
/// Those of the database.
pub async fn changes(
    conn: &mut PgConnection,
    user_id: Option<Uuid>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Recorded>> {
    sqlx::query_as!(
        Recorded,
        r#"select id, user_id, change as "change: Change", role as "role: Role", actor_id, trace_id, at
           from account_changes
           where ($1::uuid is null or user_id = $1)
             and ($2::bigint is null or id < $2)
           order by id desc
           limit $3"#,
        user_id,
        before,
        limit,
    )
    .fetch_all(conn)
    .await
}
