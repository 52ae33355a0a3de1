//! Where people are signed in: a session is a family of refresh tokens, each of which is good once.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use database::Pool;
use sqlx::PgConnection;
use trace::Trace;
use uuid::Uuid;

use crate::account::{self, Account, Change};

/// The random bytes of a refresh token.
const BYTES: usize = 32;

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
    let session_id = Uuid::now_v7();
    sqlx::query!(
        "insert into sessions (id, user_id, client, expires_at)
         values ($1, $2, $3, now() + make_interval(days => $4))",
        session_id,
        user_id,
        client,
        i32::try_from(ttl_days)?,
    )
    .execute(&mut *conn)
    .await?;
    hand_out(conn, session_id).await
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
    let Some(user_id) = owner(conn, token).await? else { return Ok(Refreshed::Refused) };
    let account = account::reenter(conn, user_id).await?;
    let Some(found) = find(conn, token).await? else { return Ok(Refreshed::Refused) };
    if found.over {
        return Ok(Refreshed::Refused);
    }
    if found.used {
        end(conn, found.session_id).await?;
        account::record(conn, user_id, Change::SessionStolen, None, None, trace).await?;
        return Ok(Refreshed::Stolen);
    }
    let Some(account) = account else { return Ok(Refreshed::Refused) };
    sqlx::query!("update refresh_tokens set used_at = now() where hash = $1", hash(token)).execute(&mut *conn).await?;
    Ok(Refreshed::Fresh(Box::new(account), hand_out(conn, found.session_id).await?))
}

/// Ends the session of a refresh token, be it used or not. Of a token that is none there is nothing to end.
///
/// # Errors
/// Those of the database.
pub async fn close(conn: &mut PgConnection, token: &str) -> sqlx::Result<()> {
    match find(conn, token).await? {
        Some(found) => end(conn, found.session_id).await,
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
             where email = $1 and client = $2 and sessions.created_at > now() - interval '90 days'
           ) as "known!""#,
        email,
        client,
    )
    .fetch_one(conn)
    .await
}

/// Deletes sessions that ended long ago, with their tokens. Those of the last 90 days tell which clients are known.
///
/// # Errors
/// Those of the database.
pub async fn forget_ended(pool: &Pool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query!("delete from sessions where expires_at < now() and created_at < now() - interval '90 days'")
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

struct Found {
    session_id: Uuid,
    used: bool,
    over: bool,
}

async fn owner(conn: &mut PgConnection, token: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select user_id from refresh_tokens join sessions on sessions.id = session_id where hash = $1",
        hash(token),
    )
    .fetch_optional(conn)
    .await
}

/// The session of a token, which nobody else changes until the transaction ends.
async fn find(conn: &mut PgConnection, token: &str) -> sqlx::Result<Option<Found>> {
    sqlx::query_as!(
        Found,
        r#"select session_id, used_at is not null as "used!",
             (ended_at is not null or expires_at <= now()) as "over!"
           from refresh_tokens
           join sessions on sessions.id = session_id
           where hash = $1
           for update"#,
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

async fn hand_out(conn: &mut PgConnection, session_id: Uuid) -> anyhow::Result<RefreshToken> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    sqlx::query!("insert into refresh_tokens (hash, session_id) values ($1, $2)", hash(&token), session_id)
        .execute(conn)
        .await?;
    Ok(RefreshToken(token))
}

/// Of what is longer than any token, only the beginning is looked at: it is none either way.
fn hash(token: &str) -> Vec<u8> {
    const MAX_BYTES: usize = 2 * BYTES;
    let token = token.as_bytes();
    digest(&SHA256, &token[..token.len().min(MAX_BYTES)]).as_ref().to_vec()
}
