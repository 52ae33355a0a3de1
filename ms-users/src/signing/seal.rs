use anyhow::{Context, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use boot::config::{ExposeSecret, SecretString};

/// The fewest characters of the secret.
const MIN_CHARS: usize = 16;

/// Encrypts private keys for the database, with AES-256-GCM under a key made of the configured secret by HKDF.
#[derive(Debug, Clone)]
pub struct Seal(std::sync::Arc<RandomizedNonceKey>);

impl Seal {
    /// The seal of a secret.
    ///
    /// # Errors
    /// When the secret is too short.
    pub fn of(secret: &SecretString) -> anyhow::Result<Self> {
        let secret = secret.expose_secret();
        ensure!(secret.chars().count() >= MIN_CHARS, "KEY_ENCRYPTION_SECRET has fewer than {MIN_CHARS} characters");
        let mut key = [0; 32];
        let derived = Salt::new(HKDF_SHA256, b"ms-users").extract(secret.as_bytes());
        let filled = derived.expand(&[b"signing keys"], &AES_256_GCM).and_then(|derived| derived.fill(&mut key));
        filled.ok().context("cannot derive a key")?;
        Ok(Self(RandomizedNonceKey::new(&AES_256_GCM, &key).context("cannot make a key")?.into()))
    }

    /// The nonce and what was encrypted with it. Only under the same name can it be read.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub(super) fn close(&self, name: &str, plain: &[u8]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let mut sealed = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok().context("cannot encrypt")?;
        Ok((nonce.as_ref().to_vec(), sealed))
    }

    /// What was encrypted.
    ///
    /// # Errors
    /// When it was encrypted with another secret or under another name, or was changed.
    pub(super) fn open(&self, name: &str, nonce: &[u8], sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok().context("no nonce")?;
        let mut plain = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(name), &mut plain).ok().context("cannot decrypt")?;
        Ok(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_opens_what_it_closed_and_only_under_its_name() {
        let seal = |secret: &str| Seal::of(&secret.into()).unwrap();
        let (nonce, sealed) = seal("a secret of sixteen").close("a", b"key").unwrap();
        assert_eq!(seal("a secret of sixteen").open("a", &nonce, &sealed).unwrap(), b"key");
        assert!(seal("another secret of sixteen").open("a", &nonce, &sealed).is_err());
        assert!(seal("a secret of sixteen").open("b", &nonce, &sealed).is_err());
        let changed: Vec<u8> = sealed.iter().map(|byte| byte ^ 1).collect();
        assert!(seal("a secret of sixteen").open("a", &nonce, &changed).is_err());
        assert!(Seal::of(&"short".into()).is_err());
    }
}
