//! Which services there are, and the configuration they get from us by their environment.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::logins::Logins;
use crate::servers::Servers;
use crate::{ports, psql, workspace};

/// One service of the platform.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Also the name of its database and of that database's owner.
    pub name: &'static str,
    /// The program that is it.
    pub program: &'static str,
    /// Where it listens unless that is taken.
    pub port: u16,
    /// Whether it speaks to RabbitMQ.
    pub uses_broker: bool,
}

/// All services, in the order they are started.
pub const SERVICES: [Service; 3] = [
    Service { name: "inventory", program: "ms-inventory", port: 8000, uses_broker: true },
    Service { name: "orders", program: "ms-orders", port: 8001, uses_broker: true },
    Service { name: "users", program: "ms-users", port: 8002, uses_broker: false },
];

impl Service {
    /// URL of its database, as its own role, whose password in development is its name.
    pub fn database_url(&self, servers: &Servers) -> Result<String> {
        psql::rewrite_url(&servers.database_url, Some((self.name, self.name)), self.name)
    }

    /// The variable by which it alone learns its own login at a private broker: the user of its program's name.
    fn login(&self, servers: &Servers, logins: &Logins) -> Option<(String, String)> {
        servers.private_broker()?;
        let (_, address) = servers.amqp_url.rsplit_once('@')?;
        let password = logins.password(self.program)?;
        Some(("AMQP_URL".to_owned(), format!("amqp://{}:{password}@{address}", self.program)))
    }

    /// What of the [environment](Addresses::environment) it is to see: no other's database, and at a private broker its own
    /// login.
    pub fn own(&self, environment: &[(String, String)], servers: &Servers, logins: &Logins) -> Vec<(String, String)> {
        let others: Vec<String> =
            SERVICES.iter().filter(|other| other.name != self.name).map(Self::database_variable).collect();
        let is_own = |name: &String| !others.contains(name) && (self.uses_broker || name != "AMQP_URL");
        let own = environment.iter().filter(|(name, _)| is_own(name)).cloned();
        own.chain(self.login(servers, logins)).collect()
    }

    /// The variable that holds [`Self::database_url`].
    pub fn database_variable(&self) -> String {
        format!("{}_DATABASE_URL", self.name.to_uppercase())
    }
}

/// Where each service will answer, chosen anew at each start.
#[derive(Clone, Debug)]
pub struct Addresses(Vec<(Service, u16)>);

impl Addresses {
    /// Prefers each service's own port.
    pub fn choose() -> Result<Self> {
        SERVICES.into_iter().map(|service| Ok((service, ports::prefer(service.port)?))).collect::<Result<_>>().map(Self)
    }

    /// Each service with its base URL.
    pub fn urls(&self) -> impl Iterator<Item = (Service, String)> {
        self.0.iter().map(|(service, port)| (*service, format!("http://127.0.0.1:{port}")))
    }

    /// What the services and the programs beside them read. The broker's login is an administrator's, for those who use
    /// the programs by hand; a service has [another](Service::own).
    pub fn environment(&self, servers: &Servers) -> Result<Vec<(String, String)>> {
        let mut environment = vec![
            ("AMQP_URL".to_owned(), servers.amqp_url.clone()),
            ("BIND_ADDRESS".to_owned(), "127.0.0.1".to_owned()),
            ("ENVIRONMENT".to_owned(), "development".to_owned()),
            ("DEMO_ACCOUNTS".to_owned(), "true".to_owned()),
        ];
        for ((service, port), (_, url)) in self.0.iter().zip(self.urls()) {
            let name = service.name.to_uppercase();
            environment.push((service.database_variable(), service.database_url(servers)?));
            environment.push((format!("{name}_PORT"), port.to_string()));
            if service.name == "users" {
                environment.push(("JWKS_URL".to_owned(), format!("{url}/.well-known/jwks.json")));
            }
            environment.push((format!("{name}_URL"), url));
        }
        Ok(environment)
    }
}

/// The file from which programs started by hand learn what the services were given.
pub fn environment_file() -> Result<PathBuf> {
    Ok(workspace::root()?.join(".dev/env"))
}

/// Writes [`environment_file`].
pub fn write_environment(environment: &[(String, String)]) -> Result<()> {
    let file = environment_file()?;
    let mut text = String::from("# Written by `cargo dev up`, deleted by `cargo dev down`.\n");
    for (name, value) in environment {
        // Single quotes: dotenv expands `$` in anything else.
        text.push_str(&format!("{name}='{value}'\n"));
    }
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Deletes [`environment_file`].
pub fn forget_environment() {
    if let Ok(file) = environment_file() {
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_login_of_its_own_at_a_private_broker_only() {
        let inventory = SERVICES[0];
        let logins = Logins::read().unwrap();
        let private = Servers {
            database_url: "postgres://postgres@127.0.0.1/postgres".to_owned(),
            amqp_url: "amqp://rabbit_user:rabbit_pass@127.0.0.1:5673/%2f".to_owned(),
            rabbitmq_ui: Some("http://127.0.0.1:15673".to_owned()),
            rabbitmqctl: Some("rabbitmqctl".to_owned()),
        };
        let password = logins.password("ms-inventory").unwrap();
        let own = format!("amqp://ms-inventory:{password}@127.0.0.1:5673/%2f");
        assert_eq!(inventory.login(&private, &logins), Some(("AMQP_URL".to_owned(), own)));
        let foreign = Servers { rabbitmqctl: None, ..private };
        assert_eq!(inventory.login(&foreign, &logins), None);
    }
}
