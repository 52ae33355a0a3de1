//! Secrets and accounts that everybody knows, and that are for development only.

use anyhow::ensure;

use crate::config::{Environment, ExposeSecret, SecretString};

/// The demo ADMIN.
pub const ADMIN_EMAIL: &str = "admin@example.com";
/// The password of the demo ADMIN.
pub const ADMIN_PASSWORD: &str = "admin-demo-password";
/// The demo USER.
pub const USER_EMAIL: &str = "user@example.com";
/// The password of the demo USER.
pub const USER_PASSWORD: &str = "user-demo-password";
/// What encrypts signing keys in development.
pub const KEY_ENCRYPTION_SECRET: &str = "demo-key-encryption-secret";

/// All secrets that stand somewhere in this repository, and those that servers come with.
const KNOWN: &[&str] = &[
    ADMIN_PASSWORD,
    USER_PASSWORD,
    KEY_ENCRYPTION_SECRET,
    "inventory",
    "orders",
    "users",
    "rabbit_pass",
    "inventory_pass",
    "orders_pass",
    "guest",
    "postgres",
];

/// Refuses secrets that everybody knows, given with the variables they are read from, outside development.
///
/// # Errors
/// Which of them is one.
pub fn refuse(environment: Environment, secrets: &[(&str, &SecretString)]) -> anyhow::Result<()> {
    if environment == Environment::Development {
        return Ok(());
    }
    for (variable, secret) in secrets {
        let secret = secret.expose_secret();
        ensure!(
            !KNOWN.contains(&secret) && !password(secret).is_some_and(|password| KNOWN.contains(&password)),
            "{variable} has a secret that everybody knows: set another, or ENVIRONMENT=development on a machine where \
             it guards nothing"
        );
    }
    Ok(())
}

/// The password of a URL.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (login, _) = rest.split('/').next()?.rsplit_once('@')?;
    login.split_once(':').map(|(_, password)| password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_everybody_knows_is_for_development_only() {
        let refused = |secret: &str| refuse(Environment::Production, &[("SECRET", &secret.into())]).is_err();
        for known in
            [KEY_ENCRYPTION_SECRET, "amqp://rabbit_user:rabbit_pass@broker:5672/%2f", "postgres://a:orders@h/d"]
        {
            assert!(refused(known), "{known}");
            assert!(refuse(Environment::Development, &[("SECRET", &known.into())]).is_ok());
        }
        for own in ["something else", "amqp://rabbit_user:xK3@broker:5672/%2f", "postgres://h/orders", ""] {
            assert!(!refused(own), "{own}");
        }
    }
}
