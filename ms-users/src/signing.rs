//! The keys that sign access tokens: kept encrypted, published, and replaced one after the other.

mod command;
mod seal;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use auth::keys::{Published, Revoked};
use auth::token::{LEEWAY_SECONDS, LIFETIME, MAX_AHEAD_SECONDS};
use auth::{Caller, SigningKey, Tokens};
use axum::body::Bytes;
use chrono::{DateTime, Utc};
use database::Pool;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::account::Account;

pub use command::Command;
pub use seal::Seal;

/// How long a new key is published before it signs: longer than any service takes to look for keys by itself.
const ANNOUNCED: Duration = Duration::from_secs(60);

/// How long after a moment some service may still take a token that was signed before it: the life of a token, by a clock
/// that is behind, and a minute for instances that learned late of a new key. For so long an old key is published after a new
/// one has begun to sign, and an account is told as revoked.
const REMEMBERED: Duration = Duration::from_secs(LIFETIME.as_secs() + LEEWAY_SECONDS + MAX_AHEAD_SECONDS + 60);

/// One key, as it is kept.
pub struct Stored {
    /// What it is called.
    pub kid: String,
    sealed: Vec<u8>,
    nonce: Vec<u8>,
    /// From when it signs.
    pub signs_from: DateTime<Utc>,
    /// Until when tokens it signed count, once it is replaced.
    pub retires_at: Option<DateTime<Utc>>,
    /// Whether it signs already.
    pub signs: bool,
}

impl Stored {
    fn open(&self, seal: &Seal) -> anyhow::Result<Arc<SigningKey>> {
        let pkcs8 = seal
            .open(&self.kid, &self.nonce, &self.sealed)
            .with_context(|| format!("key {} cannot be read with this KEY_ENCRYPTION_SECRET", self.kid))?;
        Ok(Arc::new(SigningKey::from_pkcs8(&pkcs8)?))
    }
}

/// Signs tokens with the newest key that has begun to sign. Clones share it.
#[derive(Clone)]
pub struct Signing {
    pool: Pool,
    seal: Seal,
    tokens: Tokens,
    keys: auth::Keys,
    current: watch::Sender<Current>,
}

/// What is known of the keys at one moment.
#[derive(Clone, Default)]
struct Current {
    signer: Option<Arc<SigningKey>>,
    /// As JSON, for everybody who asks.
    published: Bytes,
}

impl Signing {
    /// Signs nothing yet.
    pub fn new(pool: Pool, seal: Seal, tokens: Tokens) -> Self {
        Self { pool, seal, tokens, keys: auth::Keys::default(), current: watch::Sender::default() }
    }

    /// By which our own tokens are verified.
    pub fn keys(&self) -> &auth::Keys {
        &self.keys
    }

    /// The public keys, and the accounts whose older tokens count no more, as JSON.
    pub fn published(&self) -> Bytes {
        self.current.borrow().published.clone()
    }

    /// Whether there is a key to sign with.
    ///
    /// # Errors
    /// That there is none.
    pub fn check(&self) -> Result<(), String> {
        if self.current.borrow().signer.is_some() { Ok(()) } else { Err("no key to sign with yet".to_owned()) }
    }

    /// A token for an account that the transaction of `conn` has locked, and how many seconds it is valid.
    ///
    /// It is signed by PostgreSQL's clock, by which accounts are revoked as well: whatever this machine's clock says, it is
    /// older than a revocation that waits for the lock.
    ///
    /// # Errors
    /// When there is no key yet, or the database fails.
    pub async fn token(&self, conn: &mut PgConnection, account: &Account) -> anyhow::Result<(String, u64)> {
        let signer = self.current.borrow().signer.clone().context("no key to sign with yet")?;
        let now = sqlx::query_scalar!(r#"select floor(extract(epoch from clock_timestamp()))::bigint as "now!""#);
        // Whoever changed their password in this second is to have a token that counts.
        let iat = now.fetch_one(conn).await?.max(account.tokens_not_before).unsigned_abs();
        let caller = Caller { user_id: account.id, role: account.role.into() };
        Ok((self.tokens.sign(&signer, caller, iat)?, LIFETIME.as_secs()))
    }

    /// Has a first key sign at once, where there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ensure_key(&self) -> anyhow::Result<()> {
        let mut tx = self.pool.begin().await?;
        take_turns(&mut tx).await?;
        if stored(&mut tx).await?.is_empty() {
            add(&mut tx, &self.seal, &SigningKey::generate()?, Duration::ZERO).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Keeps the keys up to date until `shutdown`.
    pub async fn follow(&self, period: Duration, shutdown: &CancellationToken) {
        self.keys.follow(period, shutdown, || self.load()).await;
    }

    async fn load(&self) -> anyhow::Result<Published> {
        let mut conn = self.pool.acquire().await?;
        let stored = stored(&mut conn).await?;
        let keys = stored.iter().map(|stored| stored.open(&self.seal)).collect::<anyhow::Result<Vec<_>>>()?;
        let signer = stored.iter().zip(&keys).rev().find(|(stored, _)| stored.signs).map(|(_, key)| key.clone());
        let public = keys.iter().map(|key| key.public()).collect::<anyhow::Result<_>>()?;
        let published = Published { keys: public, revoked: revoked(&mut conn).await? };
        self.current.send_replace(Current { signer, published: serde_json::to_vec(&published)?.into() });
        Ok(published)
    }
}

/// The keys whose tokens count, the one that signs last at the end.
async fn stored(conn: &mut PgConnection) -> sqlx::Result<Vec<Stored>> {
    sqlx::query_as!(
        Stored,
        r#"select kid, sealed, nonce, signs_from, retires_at, signs_from <= now() as "signs!"
           from signing_keys
           where retires_at is null or retires_at > now()
           order by signs_from, kid"#
    )
    .fetch_all(conn)
    .await
}

/// Accounts of which a token may be about that counts no more.
async fn revoked(conn: &mut PgConnection) -> sqlx::Result<Vec<Revoked>> {
    let rows = sqlx::query!(
        "select id, tokens_not_before
         from users
         where tokens_not_before > 0
           and tokens_not_before > floor(extract(epoch from now()))::bigint - $1",
        REMEMBERED.as_secs() as i64,
    )
    .fetch_all(conn)
    .await?;
    let revoked = rows.into_iter().map(|row| Revoked { sub: row.id, before: row.tokens_not_before.unsigned_abs() });
    Ok(revoked.collect())
}

/// Adds a key, which signs after so long.
///
/// # Errors
/// When the key is there already, or the database fails.
pub async fn add(conn: &mut PgConnection, seal: &Seal, key: &SigningKey, after: Duration) -> anyhow::Result<()> {
    let (nonce, sealed) = seal.close(key.kid(), key.pkcs8())?;
    sqlx::query!(
        "insert into signing_keys (kid, sealed, nonce, signs_from)
         values ($1, $2, $3, now() + make_interval(secs => $4))",
        key.kid(),
        sealed,
        nonce,
        after.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Has a new key take over. The old ones are published until their last tokens have ended; `at_once` both happens now,
/// and everybody has to refresh.
///
/// # Errors
/// Those of the database, or when the keys there are cannot be read: who has their secret could not read the new one.
pub async fn rotate(pool: &Pool, seal: &Seal, at_once: bool) -> anyhow::Result<String> {
    let (announced, remembered) =
        if at_once { (Duration::ZERO, Duration::ZERO) } else { (ANNOUNCED, ANNOUNCED + REMEMBERED) };
    let mut tx = pool.begin().await?;
    take_turns(&mut tx).await?;
    for key in stored(&mut tx).await? {
        key.open(seal)?;
    }
    sqlx::query!(
        "update signing_keys
         set retires_at = now() + make_interval(secs => $1)
         where retires_at is null or retires_at > now() + make_interval(secs => $1)",
        remembered.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    let key = SigningKey::generate()?;
    add(&mut tx, seal, &key, announced).await?;
    // Nobody needs a private key that signs no more.
    sqlx::query!("delete from signing_keys where retires_at <= now()").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(key.kid().to_owned())
}

/// Lets one at a time add keys.
async fn take_turns(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("lock table signing_keys in share row exclusive mode").execute(conn).await?;
    Ok(())
}
