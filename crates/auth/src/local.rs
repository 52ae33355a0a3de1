//! An issuer on this machine, for tests and benchmarks that need a caller and not ms-users.

use std::path::Path;

use uuid::Uuid;

use crate::caller::{Caller, Role};
use crate::config::Tokens;
use crate::keys::{Keys, Published};
use crate::signer::SigningKey;
use crate::token::{Verifier, now_seconds};

/// A key of its own, whose public half is in a file.
#[derive(Debug)]
pub struct LocalIssuer {
    key: SigningKey,
    jwks_url: String,
}

impl LocalIssuer {
    /// Makes a key and writes its public half into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        let key = SigningKey::generate()?;
        let file = folder.join("jwks.json");
        std::fs::write(&file, serde_json::to_vec(&published(&key)?)?)?;
        Ok(Self { key, jwks_url: format!("file://{}", file.display()) })
    }

    /// What a service is told as `JWKS_URL`, to trust it.
    pub fn jwks_url(&self) -> &str {
        &self.jwks_url
    }

    /// Takes its tokens, without looking into the file.
    ///
    /// # Errors
    /// None that is known of.
    pub fn verifier(&self) -> anyhow::Result<Verifier> {
        Ok(Tokens::default().verifier(Keys::of(&published(&self.key)?)))
    }

    /// A token for somebody.
    ///
    /// # Errors
    /// When the key is none after all.
    pub fn token(&self, user_id: Uuid, role: Role) -> anyhow::Result<String> {
        Tokens::default().sign(&self.key, Caller { user_id, role }, now_seconds())
    }
}

fn published(key: &SigningKey) -> anyhow::Result<Published> {
    Ok(Published { keys: vec![key.public()?], revoked: Vec::new() })
}
