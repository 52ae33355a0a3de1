//! Accounts, and who changed them.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use trace::Trace;
use uuid::Uuid;

use boot::config::{Environment, SecretString};

use crate::config::FirstAccounts;
use crate::email::Email;
use crate::password::{Hasher, Password, Weak};
use crate::session;

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
    /// Its tokens that were signed before this, in seconds since 1970, do not count.
    pub tokens_not_before: i64,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

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

/// Ends the tokens an account has. Tokens tell their time in seconds, by the clocks of other machines, which may be ahead by
/// one.
async fn revoke(conn: &mut PgConnection, id: Uuid) -> Result<Account, Error> {
    sqlx::query!(
        "update users
         set tokens_not_before = floor(extract(epoch from clock_timestamp()))::bigint + 2,
           updated_at = now()
         where id = $1",
        id,
    )
    .execute(&mut *conn)
    .await?;
    find(conn, id).await?.ok_or(Error::Unknown(id))
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

/// Opens the accounts of the configuration that are not there yet.
///
/// # Errors
/// When an address or a password of them is none, when this is not development and there are demo accounts from when it was,
/// or when the database fails.
pub async fn open_first(pool: &PgPool, first: &FirstAccounts, environment: Environment) -> anyhow::Result<()> {
    let hasher = Hasher::new(1)?;
    if environment == Environment::Production {
        refuse_demo_accounts(pool, &hasher).await?;
    }
    let mut wanted: Vec<(Email, SecretString, Role)> = Vec::new();
    if let (Some(email), Some(password)) = (&first.admin_email, &first.admin_password) {
        let email = email.parse().map_err(|error| anyhow::anyhow!("ADMIN_EMAIL {error}"))?;
        wanted.push((email, password.clone(), Role::Admin));
    }
    if first.demo_accounts {
        for (email, password, role) in [
            (boot::demo::ADMIN_EMAIL, boot::demo::ADMIN_PASSWORD, Role::Admin),
            (boot::demo::USER_EMAIL, boot::demo::USER_PASSWORD, Role::User),
        ] {
            wanted.push((email.parse()?, password.into(), role));
        }
    }
    for (email, password, role) in wanted {
        let mut conn = pool.acquire().await?;
        if let Some((id, _)) = find_password(&mut conn, email.as_str()).await? {
            if role == Role::Admin && !is_admin(&mut conn, id).await? {
                tracing::warn!(user.id = %id, "the account of ADMIN_EMAIL is there already, and no ADMIN");
            }
            continue;
        }
        let password = Password::choose(password).map_err(|weak: Weak| anyhow::anyhow!("of {email}: {weak}"))?;
        let hash = hasher.hash(password).await?;
        let mut tx = pool.begin().await?;
        match open(&mut tx, &email, &hash, role, Trace::start()).await {
            // Another instance was faster.
            Err(Error::EmailTaken) => continue,
            opened => opened?,
        };
        tx.commit().await?;
    }
    Ok(())
}

/// Everybody knows their passwords.
async fn refuse_demo_accounts(pool: &PgPool, hasher: &Hasher) -> anyhow::Result<()> {
    for (email, password) in
        [(boot::demo::ADMIN_EMAIL, boot::demo::ADMIN_PASSWORD), (boot::demo::USER_EMAIL, boot::demo::USER_PASSWORD)]
    {
        let mut conn = pool.acquire().await?;
        let Some((id, stored)) = find_password(&mut conn, email).await? else { continue };
        let is_open = reenter(&mut conn, id).await?.is_some() && hasher.is(password.into(), Some(stored)).await?;
        anyhow::ensure!(
            !is_open,
            "{email} is open to everybody: change its password or disable it in development first"
        );
    }
    Ok(())
}
