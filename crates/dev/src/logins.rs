//! Who may do what at the broker: `deploy/rabbitmq-definitions.json`, which the containers' broker loads as well.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace;

/// The users of a broker with their passwords and permissions, and the exchanges they share.
#[derive(Clone, Debug)]
pub struct Logins(Value);

impl Logins {
    /// Those for development.
    pub fn read() -> Result<Self> {
        let file = workspace::root()?.join("deploy/rabbitmq-definitions.json");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).map(Self).with_context(|| format!("{} is no JSON", file.display()))
    }

    /// The same in another vhost, its name before that of each user, because users are those of the whole broker.
    pub fn in_vhost(&self, vhost: &str) -> Result<Self> {
        let mut text = self.0.to_string().replace(r#""/""#, &format!(r#""{vhost}""#));
        for (user, _) in self.users() {
            text = text.replace(&format!(r#""{user}""#), &format!(r#""{vhost}.{user}""#));
        }
        Ok(Self(serde_json::from_str(&text)?))
    }

    /// Each user with its password.
    pub fn users(&self) -> impl Iterator<Item = (&str, &str)> {
        self.each("users").filter_map(|user| Some((user["name"].as_str()?, user["password"].as_str()?)))
    }

    /// The password of a user, where there is one of that name.
    pub fn password(&self, user: &str) -> Option<&str> {
        self.users().find(|(name, _)| *name == user).map(|(_, password)| password)
    }

    /// What RabbitMQ imports.
    pub fn definitions(&self) -> &Value {
        &self.0
    }

    /// Each of `users`, `permissions` or `exchanges` in the form of the management API.
    pub fn each(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0[kind].as_array().into_iter().flatten()
    }
}
