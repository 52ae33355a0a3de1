//! Passwords: which are good enough, and how they are kept.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use boot::config::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// The fewest characters: what [ASVS 5.0](https://github.com/OWASP/ASVS/blob/v5.0.0/5.0/en/0x15-V6-Authentication.md)
/// asks for in 6.2.1.
pub const MIN_CHARS: usize = 8;

/// The most characters: more than the 64 that ASVS 6.2.9 wants allowed, and few enough to be hashed at once.
pub const MAX_CHARS: usize = 128;

/// The longest time somebody waits for a password to be hashed while others' are.
const PATIENCE: Duration = Duration::from_secs(10);

/// The passwords of at least [`MIN_CHARS`] among the 20 000 most common ones, in lower case (ASVS 6.2.4). The list is
/// Royce Williams', as [Django](https://github.com/django/django/blob/5.2.8/django/contrib/auth/password_validation.py)
/// ships it.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common-passwords.txt").lines().collect());

/// A password that is good enough. There are no rules of composition: they make passwords guessable, not strong (ASVS
/// 6.2.5).
#[derive(Debug, Clone)]
pub struct Password(SecretString);

/// Why a password is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// It has too few characters.
    #[error("a password has at least {MIN_CHARS} characters")]
    Short,
    /// It has too many characters.
    #[error("a password has at most {MAX_CHARS} characters")]
    Long,
    /// Everybody tries it first.
    #[error("this password is one of the most common ones: choose another")]
    Common,
}

impl Password {
    /// A password somebody chose.
    ///
    /// # Errors
    /// Why it is not good enough.
    pub fn choose(text: SecretString) -> Result<Self, Weak> {
        let chars = text.expose_secret().chars().count();
        if chars < MIN_CHARS {
            return Err(Weak::Short);
        }
        if chars > MAX_CHARS {
            return Err(Weak::Long);
        }
        if COMMON.contains(text.expose_secret().to_lowercase().as_str()) {
            return Err(Weak::Common);
        }
        Ok(Self(text))
    }
}

/// Hashes passwords with Argon2id, away from the threads that serve requests, and only so many at once.
///
/// The parameters are the first of those [OWASP] finds equal: 19 MiB, 2 passes, 1 lane.
///
/// [OWASP]: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id
#[derive(Debug, Clone)]
pub struct Hasher {
    at_once: Arc<Semaphore>,
    /// The hash of a password nobody has, for accounts that do not exist.
    nobodys: Arc<str>,
}

/// Too many passwords are to be hashed.
#[derive(Debug, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

impl Hasher {
    /// Hashes so many at once.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn new(at_once: u32) -> anyhow::Result<Self> {
        let nobodys = hash(&uuid::Uuid::now_v7().to_string())?;
        Ok(Self { at_once: Arc::new(Semaphore::new(at_once as usize)), nobodys: nobodys.into() })
    }

    /// What is stored of a password.
    ///
    /// # Errors
    /// [`Busy`], or a fault.
    pub async fn hash(&self, password: Password) -> anyhow::Result<String> {
        self.run(move || hash(password.0.expose_secret())).await?
    }

    /// Whether a password is the one of which this is stored. Where there is nothing stored it takes as long to say no.
    ///
    /// # Errors
    /// [`Busy`], or a fault.
    pub async fn is(&self, password: SecretString, stored: Option<String>) -> anyhow::Result<bool> {
        // Nobody has one that is longer, and to hash a megabyte is work.
        let fits = password.expose_secret().len() <= MAX_CHARS * char::MAX.len_utf8();
        let (exists, nobodys) = (stored.is_some() && fits, self.nobodys.clone());
        self.run(move || {
            let stored = stored.as_deref().unwrap_or(&nobodys);
            let parsed = PasswordHash::new(stored).map_err(|error| anyhow::anyhow!("no password hash: {error}"))?;
            let tried = if fits { password.expose_secret() } else { "" };
            let same = Argon2::default().verify_password(tried.as_bytes(), &parsed).is_ok();
            anyhow::Ok(same && exists)
        })
        .await?
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let permit = tokio::time::timeout(PATIENCE, self.at_once.clone().acquire_owned()).await.map_err(|_| Busy)??;
        let worked = tokio::task::spawn_blocking(move || {
            let worked = work();
            drop(permit);
            worked
        });
        Ok(worked.await?)
    }
}

fn hash(password: &str) -> anyhow::Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("cannot hash: {error}"))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> Result<Password, Weak> {
        Password::choose(text.into())
    }

    #[test]
    fn a_password_is_judged_by_its_length_and_by_how_common_it_is() {
        for good in ["tr0ub4dor&3", "correct horse", "zzzzyyyyxxxx", "пароль-на-славу", &"x".repeat(MAX_CHARS)]
        {
            assert!(choose(good).is_ok(), "{good}");
        }
        assert_eq!(choose("1234567").unwrap_err(), Weak::Short);
        assert_eq!(choose("ääääääé").unwrap_err(), Weak::Short, "characters count, not bytes");
        assert_eq!(choose(&"x".repeat(MAX_CHARS + 1)).unwrap_err(), Weak::Long);
        for common in ["password", "PassWord1", "qwertyuiop", "iloveyou"] {
            assert_eq!(choose(common).unwrap_err(), Weak::Common, "{common}");
        }
    }

    #[test]
    fn the_parameters_are_those_owasp_recommends() {
        let hash = hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    }

    #[tokio::test]
    async fn only_the_password_itself_is_the_password() {
        let hasher = Hasher::new(1).unwrap();
        let stored = hasher.hash(choose("correct horse").unwrap()).await.unwrap();
        let is = async |text: &str, stored: Option<&String>| hasher.is(text.into(), stored.cloned()).await.unwrap();
        assert!(is("correct horse", Some(&stored)).await);
        assert!(!is("Correct horse", Some(&stored)).await);
        assert!(!is("correct horse", None).await);
        assert!(!is(&"x".repeat(1_000_000), Some(&stored)).await);
        let again = hasher.hash(choose("correct horse").unwrap()).await.unwrap();
        assert_ne!(again, stored, "each has a salt of its own");
    }
}
