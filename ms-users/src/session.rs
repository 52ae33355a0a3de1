//! Where people are signed in: a session is a family of refresh tokens, each of which is good once.
//!
//! A token is 16 random bytes that are the same in all tokens of its session, and 32 of its own. Of a session only the newest
//! token is kept: what begins like it, and is another one, was used before.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use database::Pool;
use sqlx::PgConnection;
use trace::Trace;
use uuid::Uuid;

use crate::account::{self, Account, Change};

/// The random bytes that all refresh tokens of a session begin with.
const FAMILY_BYTES: usize = 16;

/// The random bytes of a refresh token's own.
const OWN_BYTES: usize = 32;

/// The longest that is looked at of a refresh token: its bytes in base64.
const MAX_CHARS: usize = (FAMILY_BYTES + OWN_BYTES) * 4 / 3;

/// How long a used token is kept that does not say which session it is of: as long as its session lasts by default.
const USED_DAYS: i32 = 30;

/// How long a session is kept after it was opened: it tells which clients are known.
const KNOWN_DAYS: i32 = 90;

/// A refresh token, as its owner has it. Here, only its hash is kept.
pub struct RefreshToken(String);

impl RefreshToken {
    /// To be handed to its owner.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Opens a session, and gives its first refresh token.
///
/// # Errors
/// Those of the database.
pub async fn open(conn: &mut PgConnection, user_id: Uuid, client: &str, ttl_days: u32) -> anyhow::Result<RefreshToken> {
    let (session_id, family) = (Uuid::now_v7(), random::<FAMILY_BYTES>()?);
    sqlx::query!(
        "insert into sessions (id, user_id, client, expires_at, family)
         values ($1, $2, $3, now() + make_interval(days => $4), $5)",
        session_id,
        user_id,
        client,
        i32::try_from(ttl_days)?,
        sha256(&family),
    )
    .execute(&mut *conn)
    .await?;
    hand_out(conn, session_id, &family).await
}

/// What came of a refresh.
pub enum Refreshed {
    /// The account goes on, with this token.
    Fresh(Box<Account>, RefreshToken),
    /// The token is no good, or its session has ended.
    Refused,
    /// The token was used before: somebody has stolen it, so its session has ended now.
    Stolen,
}

/// Trades a refresh token for the next one, and locks its account. To be committed when it is fresh or stolen.
///
/// # Errors
/// Those of the database.
pub async fn refresh(conn: &mut PgConnection, token: &str, trace: Trace) -> anyhow::Result<Refreshed> {
    // Whoever ends an account locks it before its sessions, and so does this.
    let Some(Session { id, user_id }) = session_of(conn, token).await? else { return Ok(Refreshed::Refused) };
    let account = account::reenter(conn, user_id).await?;
    let Some(found) = lock(conn, id, token).await? else { return Ok(Refreshed::Refused) };
    if found.is_over {
        return Ok(Refreshed::Refused);
    }
    if !found.is_newest {
        end(conn, id).await?;
        account::record(conn, user_id, Change::SessionStolen, None, None, trace).await?;
        return Ok(Refreshed::Stolen);
    }
    let Some(account) = account else { return Ok(Refreshed::Refused) };
    let family = family(token);
    use_up(conn, token, family.is_some()).await?;
    Ok(Refreshed::Fresh(Box::new(account), hand_out(conn, id, &family.unwrap_or_default()).await?))
}

/// Ends the session of a refresh token, be it used or not. Of a token that is none there is nothing to end.
///
/// # Errors
/// Those of the database.
pub async fn close(conn: &mut PgConnection, token: &str) -> sqlx::Result<()> {
    match session_of(conn, token).await? {
        Some(session) => end(conn, session.id).await,
        None => Ok(()),
    }
}

/// Ends all sessions of an account.
///
/// # Errors
/// Those of the database.
pub async fn close_all(conn: &mut PgConnection, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update sessions set ended_at = now() where user_id = $1 and ended_at is null", user_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether somebody has signed in to the account of this address from this client in the last 90 days. It takes as long
/// where there is no such account.
///
/// # Errors
/// Those of the database.
pub async fn is_known_client(conn: &mut PgConnection, email: &str, client: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
             select from sessions
             join users on users.id = user_id
             where email = $1 and client = $2 and sessions.created_at > now() - make_interval(days => $3)
           ) as "known!""#,
        email,
        client,
        KNOWN_DAYS,
    )
    .fetch_one(conn)
    .await
}

/// Deletes sessions that are over and were opened long ago, each with its newest token, and used tokens of sessions that
/// keep them: the oldest [`database::DELETED_AT_ONCE`] of both. Tells whether there may be more.
///
/// # Errors
/// Those of the database.
pub async fn forget_ended(pool: &Pool) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let tokens = sqlx::query!(
        "with old as materialized (
           select hash
           from refresh_tokens
           where used_at < now() - make_interval(days => $1)
           order by used_at
           limit $2
           for update skip locked
         )
         delete from refresh_tokens
         using old
         where refresh_tokens.hash = old.hash",
        USED_DAYS,
        database::DELETED_AT_ONCE,
    )
    .execute(&mut *tx)
    .await?;
    // Where there are used tokens left, they go first, so that no session takes more than one with it.
    let sessions = sqlx::query!(
        "with old as materialized (
           select id
           from sessions
           where expires_at < now()
             and created_at < now() - make_interval(days => $1)
             and not exists (select from refresh_tokens where session_id = id and used_at is not null)
           order by expires_at
           limit $2
           for update skip locked
         )
         delete from sessions
         using old
         where sessions.id = old.id",
        KNOWN_DAYS,
        database::DELETED_AT_ONCE,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(tokens.rows_affected().max(sessions.rows_affected()) == database::DELETED_AT_ONCE as u64)
}

struct Session {
    id: Uuid,
    user_id: Uuid,
}

/// The session that a token is of, or was.
async fn session_of(conn: &mut PgConnection, token: &str) -> sqlx::Result<Option<Session>> {
    sqlx::query_as!(
        Session,
        "select id, user_id
         from sessions
         where id = coalesce(
           (select session_id from refresh_tokens where hash = $1),
           (select id from sessions where family = $2)
         )",
        hash(token),
        family(token).map(|family| sha256(&family)),
    )
    .fetch_optional(conn)
    .await
}

struct Found {
    is_newest: bool,
    is_over: bool,
}

/// How a session and one of its tokens stand. Nobody else changes the session until the transaction ends.
async fn lock(conn: &mut PgConnection, session_id: Uuid, token: &str) -> sqlx::Result<Option<Found>> {
    sqlx::query_as!(
        Found,
        r#"select (ended_at is not null or expires_at <= now()) as "is_over!",
             exists (
               select from refresh_tokens where hash = $2 and session_id = id and used_at is null
             ) as "is_newest!"
           from sessions
           where id = $1
           for update"#,
        session_id,
        hash(token),
    )
    .fetch_optional(conn)
    .await
}

async fn end(conn: &mut PgConnection, session_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update sessions set ended_at = coalesce(ended_at, now()) where id = $1", session_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// A token that does not say which session it is of is kept, to be known again.
async fn use_up(conn: &mut PgConnection, token: &str, has_family: bool) -> sqlx::Result<()> {
    let used = if has_family {
        sqlx::query!("delete from refresh_tokens where hash = $1", hash(token))
    } else {
        sqlx::query!("update refresh_tokens set used_at = now() where hash = $1", hash(token))
    };
    used.execute(conn).await?;
    Ok(())
}

/// Gives a session a new token. The family is empty for a session that has none.
async fn hand_out(conn: &mut PgConnection, session_id: Uuid, family: &[u8]) -> anyhow::Result<RefreshToken> {
    let token = URL_SAFE_NO_PAD.encode([family, &random::<OWN_BYTES>()?].concat());
    sqlx::query!("insert into refresh_tokens (hash, session_id) values ($1, $2)", hash(&token), session_id)
        .execute(conn)
        .await?;
    Ok(RefreshToken(token))
}

fn random<const BYTES: usize>() -> anyhow::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(bytes)
}

/// What a token begins with, if it is long enough to say which session it is of.
fn family(token: &str) -> Option<Vec<u8>> {
    let bytes = (token.len() == MAX_CHARS).then(|| URL_SAFE_NO_PAD.decode(token).ok())??;
    Some(bytes[..FAMILY_BYTES].to_vec())
}

/// Of what is longer than any token, only the beginning is looked at: it is none either way.
fn hash(token: &str) -> Vec<u8> {
    let token = token.as_bytes();
    sha256(&token[..token.len().min(MAX_CHARS)])
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}
