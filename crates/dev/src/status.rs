//! What runs behind `cargo dev up`, as a table for people and as one JSON object for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::accounts::{self, ACCOUNTS, Account};
use crate::process_table::Identity;
use crate::rabbitmq;
use crate::servers::Servers;
use crate::services::Addresses;

/// Addresses and logins of everything that runs. Written once all of it is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Base URL of ms-inventory.
    pub inventory: String,
    /// Base URL of ms-orders.
    pub orders: String,
    /// Base URL of ms-users.
    pub users: String,
    /// Base URL of RabbitMQ's management UI, where it is known.
    pub rabbitmq_ui: Option<String>,
    /// AMQP URL.
    pub amqp: String,
    /// Each service's database, as its own role.
    pub databases: BTreeMap<String, String>,
    /// Command line that reaches the private RabbitMQ node, where there is one.
    pub rabbitmqctl: Option<String>,
}

impl Status {
    /// Everything is ready.
    pub fn new(servers: &Servers, addresses: &Addresses) -> Result<Self> {
        let urls: BTreeMap<&str, String> = addresses.urls().map(|(service, url)| (service.name, url)).collect();
        let url = |name: &str| urls.get(name).cloned().with_context(|| format!("no service {name}"));
        let databases =
            addresses.urls().map(|(service, _)| Ok((service.name.to_owned(), service.database_url(servers)?)));
        Ok(Self {
            inventory: url("inventory")?,
            orders: url("orders")?,
            users: url("users")?,
            rabbitmq_ui: servers.rabbitmq_ui.clone(),
            amqp: servers.amqp_url.clone(),
            databases: databases.collect::<Result<_>>()?,
            rabbitmqctl: servers.rabbitmqctl.clone(),
        })
    }

    /// Publishes it below `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        Ok(fs::write(dir.join("status.json"), serde_json::to_vec_pretty(self)?)?)
    }

    /// Takes it back.
    pub fn forget(dir: &Path) {
        let _ = fs::remove_file(dir.join("status.json"));
    }

    /// What runs below `dir`; `None` unless all of it was ready and its supervisor lives.
    pub fn of(dir: &Path) -> Option<Self> {
        supervisor(dir)?;
        serde_json::from_slice(&fs::read(dir.join("status.json")).ok()?).ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, url) in [("inventory", &self.inventory), ("orders", &self.orders), ("users", &self.users)] {
            writeln!(f, "  {name:<11} {url}/graphql   health: {url}/health")?;
        }
        if let Some(ui) = &self.rabbitmq_ui {
            writeln!(f, "  {:<11} {ui}   {} / {}", "RabbitMQ UI", rabbitmq::USER, rabbitmq::PASSWORD)?;
        }
        writeln!(f, "  {:<11} {}", "AMQP", self.amqp)?;
        let shells: Vec<String> = self.databases.keys().map(|name| format!("cargo dev psql {name}")).collect();
        writeln!(f, "  {:<11} {}", "PostgreSQL", shells.join("   "))?;
        writeln!(f, "  {:<11} .dev/up/logs", "logs")?;
        for Account { role, email, password } in ACCOUNTS {
            writeln!(f, "  {role:<11} {email} / {password}")?;
        }
        write!(f, "  {:<11} ", "token")?;
        match accounts::admin_token(&self.users) {
            Ok(token) => {
                write!(f, "authorization: Bearer {token}   (ADMIN, 15 minutes; cargo dev status has the next)")
            }
            Err(error) => write!(f, "none: {error:#}"),
        }
    }
}

/// The process that supervises what runs below `dir`, if it lives.
pub fn supervisor(dir: &Path) -> Option<Identity> {
    let identity: Identity = serde_json::from_slice(&fs::read(dir.join("supervisor.json")).ok()?).ok()?;
    identity.lives().then_some(identity)
}

/// Makes the running process the supervisor. What an earlier one said was ready no longer is.
pub fn become_supervisor(dir: &Path) -> Result<()> {
    Status::forget(dir);
    let identity = Identity::of(i32::try_from(std::process::id())?).context("this process does not find itself")?;
    Ok(fs::write(dir.join("supervisor.json"), serde_json::to_vec(&identity)?)?)
}
