//! The accounts there are from the start.

use anyhow::Context;
use boot::config::{Environment, SecretString};
use boot::demo::{ADMIN_EMAIL, ADMIN_PASSWORD, USER_EMAIL, USER_PASSWORD};
use database::Pool;
use trace::Trace;

use super::{Error, Role, find_password, is_admin, open, reenter};
use crate::config::FirstAccounts;
use crate::email::Email;
use crate::password::{Hasher, Password};

const DEMO: [(&str, &str, Role); 2] =
    [(ADMIN_EMAIL, ADMIN_PASSWORD, Role::Admin), (USER_EMAIL, USER_PASSWORD, Role::User)];

/// Opens the accounts of the configuration that are not there yet.
///
/// # Errors
/// When an address or a password of them is none, when this is not development and there are demo accounts from when it was,
/// or when the database fails.
pub async fn open_missing(
    pool: &Pool,
    hasher: &Hasher,
    first: &FirstAccounts,
    environment: Environment,
) -> anyhow::Result<()> {
    if environment == Environment::Production {
        refuse_demo_accounts(pool, hasher).await?;
    }
    let mut wanted: Vec<(Email, SecretString, Role)> = Vec::new();
    if let (Some(email), Some(password)) = (&first.admin_email, &first.admin_password) {
        let email = email.parse().map_err(|error| anyhow::anyhow!("ADMIN_EMAIL {error}"))?;
        wanted.push((email, password.clone(), Role::Admin));
    }
    if first.opens_demo(environment) {
        for (email, password, role) in DEMO {
            wanted.push((email.parse()?, password.into(), role));
        }
    }
    for (email, password, role) in wanted {
        let mut conn = pool.acquire().await?;
        if let Some((id, _)) = find_password(&mut conn, email.as_str()).await? {
            if role == Role::Admin && !is_admin(&mut conn, id).await? {
                tracing::warn!(user.id = %id, "the account of ADMIN_EMAIL is there already, and no ADMIN");
            }
            continue;
        }
        let password = Password::choose(password).with_context(|| format!("of {email}"))?;
        let hash = hasher.hash(password).await?;
        let mut tx = pool.begin().await?;
        match open(&mut tx, &email, &hash, role, Trace::start()).await {
            // Another instance was faster.
            Err(Error::EmailTaken) => continue,
            opened => opened?,
        };
        tx.commit().await?;
    }
    Ok(())
}

/// Everybody knows their passwords.
async fn refuse_demo_accounts(pool: &Pool, hasher: &Hasher) -> anyhow::Result<()> {
    for (email, password, _) in DEMO {
        let mut conn = pool.acquire().await?;
        let Some((id, stored)) = find_password(&mut conn, email).await? else { continue };
        let is_open = reenter(&mut conn, id).await?.is_some() && hasher.is(password.into(), Some(stored)).await?;
        anyhow::ensure!(
            !is_open,
            "{email} is open to everybody: change its password or disable it in development first"
        );
    }
    Ok(())
}
