//! Whose signature counts: the issuer's public keys, and the accounts whose older tokens no longer do.
//!
//! Both come in one document, a JSON Web Key Set ([RFC 7517]) with the member `revoked`, and are looked at again every few
//! seconds. What was heard last stays valid while the issuer is away: a token ends by itself soon enough.
//!
//! [RFC 7517]: https://www.rfc-editor.org/rfc/rfc7517#section-5

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::token::Refused;

/// Where an issuer publishes its keys, by [RFC 8615](https://www.rfc-editor.org/rfc/rfc8615) and custom.
pub const PATH: &str = "/.well-known/jwks.json";

/// How long loading them may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long at the most a request waits for a key that was not heard of.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time between two loads, however many unknown keys are named.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The most keys that are kept of a set.
const MAX_KEYS: usize = 100;

/// What an issuer publishes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Its public keys; those that are no Ed25519 keys with a `kid` are somebody else's.
    pub keys: Vec<serde_json::Value>,
    /// Accounts of which only newer tokens count.
    #[serde(default)]
    pub revoked: Vec<Revoked>,
}

/// An account of which only newer tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The account.
    pub sub: Uuid,
    /// Tokens signed before this do not count: in seconds since 1970, by the clock of their `iat`.
    pub before: u64,
}

/// What is known at one moment.
#[derive(Default)]
pub struct Known {
    keys: HashMap<String, DecodingKey>,
    revoked: HashMap<Uuid, u64>,
}

impl Known {
    pub(crate) fn key(&self, kid: &str) -> Option<&DecodingKey> {
        self.keys.get(kid)
    }

    pub(crate) fn is_revoked(&self, sub: Uuid, iat: u64) -> bool {
        self.revoked.get(&sub).is_some_and(|before| iat < *before)
    }
}

impl From<&Published> for Known {
    fn from(published: &Published) -> Self {
        let keys = published.keys.iter().take(MAX_KEYS).filter_map(|key| {
            let key = Jwk::deserialize(key).ok()?;
            let kid = key.common.key_id.clone()?;
            let is_ours = key.common.key_algorithm.is_none_or(|algorithm| algorithm == KeyAlgorithm::EdDSA);
            let decoding = DecodingKey::from_jwk(&key).ok()?;
            (is_ours && decoding.family() == jsonwebtoken::AlgorithmFamily::Ed).then_some((kid, decoding))
        });
        let revoked = published.revoked.iter().map(|revoked| (revoked.sub, revoked.before));
        Self { keys: keys.collect(), revoked: revoked.collect() }
    }
}

/// The keys as they were last heard of. Clones share them.
#[derive(Clone, Default)]
pub struct Keys {
    heard: watch::Sender<Heard>,
    wanted: Arc<Notify>,
}

/// What was heard last.
#[derive(Default)]
struct Heard {
    known: Arc<Known>,
    /// When it was last asked for, with or without an answer: what is known by then may be from before.
    tried: Option<Instant>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.known().keys.keys()).finish()
    }
}

impl Keys {
    /// Keys that stay as they are.
    pub fn of(published: &Published) -> Self {
        let keys = Self::default();
        keys.heard.send_modify(|heard| heard.known = Arc::new(Known::from(published)));
        keys
    }

    /// Loads them now, every `period`, and when a key is asked for that is not among them, until `shutdown`.
    pub async fn follow<F>(&self, period: Duration, shutdown: &CancellationToken, load: impl Fn() -> F)
    where
        F: Future<Output = anyhow::Result<Published>>,
    {
        let mut failing = false;
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            let loaded = timeout(LOAD_TIMEOUT, load()).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
            let known = loaded.and_then(|published| {
                let known = Known::from(&published);
                // An issuer that is starting has none yet.
                if known.keys.is_empty() { Err(anyhow::anyhow!("there is no key in the set")) } else { Ok(known) }
            });
            match known {
                Ok(known) => {
                    failing = false;
                    self.heard.send_replace(Heard { known: Arc::new(known), tried: Some(begun) });
                }
                Err(error) => {
                    // Once, and not every few seconds.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = format!("{error:#}"), "cannot load the keys of tokens; trying again");
                    }
                    self.heard.send_modify(|heard| heard.tried = Some(begun));
                }
            }
            // Without any key nobody can be let in, so it is looked for as often as may be.
            let patience = if self.check().is_ok() { period.saturating_sub(MIN_PAUSE) } else { Duration::ZERO };
            let pause = async {
                tokio::time::sleep(MIN_PAUSE.min(period)).await;
                timeout(patience, self.wanted.notified()).await.ok();
            };
            shutdown.run_until_cancelled(pause).await;
        }
    }

    /// Whether any key is known.
    ///
    /// # Errors
    /// That none is.
    pub fn check(&self) -> Result<(), String> {
        if self.known().keys.is_empty() { Err("no key for tokens is known yet".to_owned()) } else { Ok(()) }
    }

    /// Has them be loaded again soon, because they may have changed.
    pub fn look_again(&self) {
        self.wanted.notify_one();
    }

    fn known(&self) -> Arc<Known> {
        self.heard.borrow().known.clone()
    }

    /// What is known, with this key among it if it can be had soon.
    pub(crate) async fn with(&self, kid: &str) -> Result<Arc<Known>, Refused> {
        let known = self.known();
        if known.key(kid).is_some() {
            return Ok(known);
        }
        let asked = Instant::now();
        let mut news = self.heard.subscribe();
        self.look_again();
        let is_news = |heard: &Heard| heard.tried.is_some_and(|tried| tried >= asked);
        timeout(PATIENCE, news.wait_for(is_news)).await.ok();
        let known = self.known();
        if known.keys.is_empty() { Err(Refused::Unverifiable) } else { Ok(known) }
    }
}
