//! Secrets and accounts that everybody knows, and that are for development only.

use anyhow::ensure;
use url::{Url, form_urlencoded};

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
    "a-password-of-your-own",
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
            !KNOWN.contains(&secret) && passwords(secret).iter().all(|password| !KNOWN.contains(&password.as_str())),
            "{variable} has a secret that everybody knows: set another, or ENVIRONMENT=development on a machine where \
             it guards nothing"
        );
    }
    Ok(())
}

/// The passwords of a URL: before the host, or among its options.
fn passwords(url: &str) -> Vec<String> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    // It is encoded as an option is.
    let login = url.password().map(|password| format!("password={password}")).unwrap_or_default();
    let login = form_urlencoded::parse(login.as_bytes()).into_owned();
    let options = url.query_pairs().into_owned();
    login.chain(options).filter(|(name, _)| name == "password").map(|(_, password)| password).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_everybody_knows_is_for_development_only() {
        let refused = |secret: &str| refuse(Environment::Production, &[("SECRET", &secret.into())]).is_err();
        for known in [
            KEY_ENCRYPTION_SECRET,
            "amqp://rabbit_user:rabbit_pass@broker:5672/%2f",
            "amqp://rabbit_user:rabbit%5Fpass@broker",
            "postgres://a:orders@h/d",
            "postgres://h/d?user=a&password=orders",
        ] {
            assert!(refused(known), "{known}");
            assert!(refuse(Environment::Development, &[("SECRET", &known.into())]).is_ok());
        }
        for own in ["something else", "amqp://rabbit_user:xK3@broker:5672/%2f", "postgres://h/orders", ""] {
            assert!(!refused(own), "{own}");
        }
    }
}
