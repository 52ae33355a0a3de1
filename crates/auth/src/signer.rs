//! Signing: for ms-users, which alone has a key that others trust.

use anyhow::Context;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::token::{Claims, TYPE};

/// A private key, and what the public one is called.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    pkcs8: Vec<u8>,
    encoding: EncodingKey,
    jwk: Jwk,
}

/// Without the key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::generate().context("cannot generate a key")?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().context("cannot write a key")?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// The key of [`Self::pkcs8`].
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let encoding = EncodingKey::from_ed_der(pkcs8);
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA)?;
        // Named by what it is, as RFC 7638 has it: the same key has the same name everywhere.
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { kid, pkcs8: pkcs8.to_vec(), encoding, jwk })
    }

    /// What it is called in tokens.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key, for safe keeping.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key, for everybody.
    ///
    /// # Errors
    /// None that is known of.
    pub fn public(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::to_value(&self.jwk)?)
    }

    /// A token that says this.
    ///
    /// # Errors
    /// When the key is none after all.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.kid.clone());
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }
}
