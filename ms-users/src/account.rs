//! Accounts: found, [opened first](first), changed, and [what happened](history) to them.

pub mod first;
mod history;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use trace::Trace;
use uuid::Uuid;

use crate::email::Email;
use crate::session;

pub use history::{Change, Recorded, changes, record};

/// What somebody is to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "role", rename_all = "snake_case")]
pub enum Role {
    /// Orders.
    User,
    /// Manages everything.
    Admin,
}

impl From<Role> for auth::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Admin => Self::Admin,
        }
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id, for ever; the `sub` of its tokens.
    pub id: Uuid,
    /// Where its owner is reached.
    pub email: String,
    /// What its owner is.
    pub role: Role,
    /// Since when it may not be used.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Its tokens that were signed before this do not count: in seconds since 1970, by PostgreSQL's clock, as all its times.
    pub tokens_not_before: i64,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this id.
    #[error("there is no account {0}")]
    Unknown(Uuid),
    /// The address has an account.
    #[error("there is an account of this e-mail address")]
    EmailTaken,
    /// Whoever does it is no ADMIN any more.
    #[error("this needs the role ADMIN")]
    NotAdmin,
    /// Nobody would be left to manage the shop.
    #[error("this is the last ADMIN: make somebody else one first")]
    LastAdmin,
    /// The database failed.
    #[error("accounts cannot be reached")]
    Database(#[from] sqlx::Error),
}

/// `select` the columns of [`Account`] and whatever follows `from users`.
macro_rules! accounts {
    ($tail:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Account,
            r#"select id, email, role as "role: Role", disabled_at, tokens_not_before, created_at, updated_at
               from users "# + $tail,
            $($argument),*
        )
    };
}

/// The account of this id.
///
/// # Errors
/// Those of the database.
pub async fn find(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Account>> {
    accounts!("where id = $1", id).fetch_optional(conn).await
}

/// Accounts, the newest first: those whose address contains `search`, older than the one of the id `before`.
///
/// # Errors
/// Those of the database.
pub async fn page(
    conn: &mut PgConnection,
    search: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Account>> {
    accounts!(
        "where ($1::text is null or position(lower($1) in email) > 0) and ($2::uuid is null or id < $2)
         order by id desc
         limit $3",
        search,
        before,
        limit
    )
    .fetch_all(conn)
    .await
}

/// The id of the account of an address, with what is stored of its password.
///
/// # Errors
/// Those of the database.
pub async fn find_password(conn: &mut PgConnection, email: &str) -> sqlx::Result<Option<(Uuid, String)>> {
    let row = sqlx::query!("select id, password_hash from users where email = $1", email).fetch_optional(conn).await?;
    Ok(row.map(|row| (row.id, row.password_hash)))
}

/// The account, if it may be used, and this is still what is stored of its password. Nobody changes it until the transaction
/// ends.
///
/// # Errors
/// Those of the database.
pub async fn enter(conn: &mut PgConnection, id: Uuid, password_hash: &str) -> sqlx::Result<Option<Account>> {
    accounts!("where id = $1 and password_hash = $2 and disabled_at is null for no key update", id, password_hash)
        .fetch_optional(conn)
        .await
}

/// The account, if it may be used. Nobody changes it until the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn reenter(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Account>> {
    accounts!("where id = $1 and disabled_at is null for no key update", id).fetch_optional(conn).await
}

/// Opens an account.
///
/// # Errors
/// [`Error::EmailTaken`].
pub async fn open(
    conn: &mut PgConnection,
    email: &Email,
    password_hash: &str,
    role: Role,
    trace: Trace,
) -> Result<Account, Error> {
    let id = Uuid::now_v7();
    let opened = sqlx::query!(
        "insert into users (id, email, password_hash, role)
         values ($1, $2, $3, $4)
         on conflict (email) do nothing",
        id,
        email.as_str(),
        password_hash,
        role as Role,
    )
    .execute(&mut *conn)
    .await?;
    if opened.rows_affected() == 0 {
        return Err(Error::EmailTaken);
    }
    record(conn, id, Change::Registered, Some(role), None, trace).await?;
    find(conn, id).await?.ok_or(Error::Unknown(id))
}

/// Gives an account another password. Every session and token it had ends.
///
/// # Errors
/// [`Error::Unknown`].
pub async fn set_password(conn: &mut PgConnection, id: Uuid, hash: &str, trace: Trace) -> Result<Account, Error> {
    sqlx::query!("update users set password_hash = $2 where id = $1", id, hash).execute(&mut *conn).await?;
    session::close_all(conn, id).await?;
    record(conn, id, Change::PasswordChanged, None, Some(id), trace).await?;
    revoke(conn, id).await
}

/// Gives an account another role, which its next token says. Where it has that role, nothing changes.
///
/// # Errors
/// [`Error::Unknown`], [`Error::LastAdmin`].
pub async fn set_role(
    conn: &mut PgConnection,
    id: Uuid,
    role: Role,
    actor: Uuid,
    trace: Trace,
) -> Result<Account, Error> {
    let account = lock(conn, id, actor).await?;
    if account.role == role {
        return Ok(account);
    }
    if role == Role::User {
        leave_an_admin(conn, &account).await?;
    }
    sqlx::query!("update users set role = $2 where id = $1", id, role as Role).execute(&mut *conn).await?;
    record(conn, id, Change::RoleChanged, Some(role), Some(actor), trace).await?;
    revoke(conn, id).await
}

/// Keeps an account from being used: every session and token it had ends. Where it is so already, nothing changes.
///
/// # Errors
/// [`Error::Unknown`], [`Error::LastAdmin`].
pub async fn disable(conn: &mut PgConnection, id: Uuid, actor: Uuid, trace: Trace) -> Result<Account, Error> {
    let account = lock(conn, id, actor).await?;
    if account.disabled_at.is_some() {
        return Ok(account);
    }
    leave_an_admin(conn, &account).await?;
    sqlx::query!("update users set disabled_at = now() where id = $1", id).execute(&mut *conn).await?;
    session::close_all(conn, id).await?;
    record(conn, id, Change::Disabled, None, Some(actor), trace).await?;
    revoke(conn, id).await
}

/// Lets an account be used again. Where it is so already, nothing changes.
///
/// # Errors
/// [`Error::Unknown`].
pub async fn enable(conn: &mut PgConnection, id: Uuid, actor: Uuid, trace: Trace) -> Result<Account, Error> {
    let account = lock(conn, id, actor).await?;
    if account.disabled_at.is_none() {
        return Ok(account);
    }
    sqlx::query!("update users set disabled_at = null, updated_at = now() where id = $1", id)
        .execute(&mut *conn)
        .await?;
    record(conn, id, Change::Enabled, None, Some(actor), trace).await?;
    find(conn, id).await?.ok_or(Error::Unknown(id))
}

/// The account, which nobody else changes until the transaction ends. All who may end an ADMIN take turns, so that whoever was
/// ended a moment ago, and whose token does not show it yet, changes nothing any more.
async fn lock(conn: &mut PgConnection, id: Uuid, actor: Uuid) -> Result<Account, Error> {
    /// "admins" in ASCII.
    const LOCK: i64 = 0x6164_6d69_6e73;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *conn).await?;
    if !is_admin(conn, actor).await? {
        return Err(Error::NotAdmin);
    }
    accounts!("where id = $1 for no key update", id).fetch_optional(conn).await?.ok_or(Error::Unknown(id))
}

async fn is_admin(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from users where id = $1 and role = 'admin' and disabled_at is null) as "is!""#,
        id,
    )
    .fetch_one(conn)
    .await
}

async fn leave_an_admin(conn: &mut PgConnection, leaving: &Account) -> Result<(), Error> {
    let others = sqlx::query_scalar!(
        r#"select exists (select from users where role = 'admin' and disabled_at is null and id <> $1) as "others!""#,
        leaving.id,
    );
    let needed = leaving.role == Role::Admin && leaving.disabled_at.is_none();
    if needed && !others.fetch_one(conn).await? { Err(Error::LastAdmin) } else { Ok(()) }
}

/// Ends the tokens an account has. They tell in whole seconds when they were signed, by this clock. The moment is later than
/// this second, and than the last moment, because a token that was signed right after that one tells it as its own.
async fn revoke(conn: &mut PgConnection, id: Uuid) -> Result<Account, Error> {
    sqlx::query!(
        "update users
         set tokens_not_before = greatest(floor(extract(epoch from clock_timestamp()))::bigint, tokens_not_before) + 1,
           updated_at = now()
         where id = $1",
        id,
    )
    .execute(&mut *conn)
    .await?;
    find(conn, id).await?.ok_or(Error::Unknown(id))
}
