//! An access token: a JSON Web Token after [RFC 9068], signed with Ed25519.
//!
//! [RFC 9068]: https://www.rfc-editor.org/rfc/rfc9068

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::{Caller, Role};
use crate::keys::Keys;

/// How long a token is valid.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long after its end a token is still taken, in seconds.
pub const LEEWAY_SECONDS: u64 = 5;

/// How far the clock that tokens are signed by may be ahead of the one they are verified by, in seconds. The first is
/// PostgreSQL's at the issuer, the second that of the machine that verifies. A token from further ahead is refused, so that a
/// machine whose clock is wrong does not take tokens for longer than their revocation is told.
pub const MAX_AHEAD_SECONDS: u64 = 60;

/// The longest token that is looked at. Ours have some 400 bytes.
const MAX_BYTES: usize = 2_048;

/// What kind of token it is, so that no other one of the same issuer passes for it.
pub(crate) const TYPE: &str = "at+jwt";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: String,
    /// For whom it is signed.
    pub aud: String,
    /// Whose it is.
    pub sub: Uuid,
    /// What they are.
    pub role: Role,
    /// When it was signed, in seconds since 1970, by the clock by which the issuer also revokes.
    pub iat: u64,
    /// When it ends, in seconds since 1970, by the same clock.
    pub exp: u64,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed by whom it must be, or not made as it must be. Which of both is nobody's business.
    #[error("the token is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired: refresh it")]
    Expired,
    /// Its account was disabled, or has another password or role by now.
    #[error("the token was revoked: sign in again")]
    Revoked,
    /// The issuer's keys have never been heard of.
    #[error("tokens cannot be verified now")]
    Unverifiable,
}

impl Refused {
    /// What it is called in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Unverifiable => "unverifiable",
        }
    }
}

/// The present by this machine's clock, in seconds since 1970.
pub fn now_seconds() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

/// Verifies tokens of one issuer for one audience.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Keys,
    validation: Validation,
}

impl Verifier {
    /// Trusts these keys.
    pub fn new(keys: Keys, issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self { keys, validation }
    }

    /// Who the bearer of a token is. Waits a moment where it is signed with a key that was not heard of yet.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        if token.len() > MAX_BYTES {
            return Err(Refused::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Invalid)?;
        let (Algorithm::EdDSA, Some(TYPE), Some(kid)) = (header.alg, header.typ.as_deref(), &header.kid) else {
            return Err(Refused::Invalid);
        };
        let known = self.keys.with(kid).await?;
        let key = known.key(kid).ok_or(Refused::Invalid)?;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let Claims { sub, role, iat, .. } = decoded.map_err(|error| Refused::from(error.kind()))?.claims;
        // This machine's clock: a token ends, and is from the future, by it. Whether it is revoked is told by the issuer's alone.
        if iat > now_seconds() + MAX_AHEAD_SECONDS {
            return Err(Refused::Invalid);
        }
        if known.is_revoked(sub, iat) {
            return Err(Refused::Revoked);
        }
        Ok(Caller { user_id: sub, role })
    }
}

impl From<&ErrorKind> for Refused {
    fn from(kind: &ErrorKind) -> Self {
        // It is looked at last, so the signature is right.
        if *kind == ErrorKind::ExpiredSignature { Self::Expired } else { Self::Invalid }
    }
}
