//! What takes orders and answers them, as processes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use dev::instance::Instance;
use dev::process::{Farewell, Process};

use crate::ground::{Ground, built};
use crate::machine::Watch;

/// Migrations run before a service is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The echo, or instances of ms-inventory.
pub(super) struct Service {
    name: String,
    amqp_url: String,
    kind: Kind,
}

enum Kind {
    Echo { with_properties: bool, process: Option<Process> },
    Inventory { instances: Vec<Instance>, wanted: usize, database_url: String },
}

impl Service {
    /// The echo on the queues of a vhost, bare or with the properties our answers have.
    pub(super) fn echo(name: String, amqp_url: String, with_properties: bool) -> Self {
        Self { name, amqp_url, kind: Kind::Echo { with_properties, process: None } }
    }

    /// So many instances of ms-inventory.
    pub(super) fn inventory(name: String, amqp_url: String, database_url: String, wanted: usize) -> Self {
        Self { name, amqp_url, kind: Kind::Inventory { instances: Vec::new(), wanted, database_url } }
    }

    /// Starts it, and does not wait until it is ready.
    pub(super) fn start(&mut self, ground: &Ground) -> Result<()> {
        match &mut self.kind {
            Kind::Echo { with_properties, process } => {
                let mut command = Command::new(built("bench")?);
                command.args(["echo", &self.amqp_url]).args(with_properties.then_some("--properties"));
                *process = Some(Process::spawn(ground.dir(), &self.name, command, Farewell::COMMAND)?);
            }
            Kind::Inventory { instances, wanted, database_url } => {
                let environment = [("INVENTORY_DATABASE_URL", database_url.as_str()), ("AMQP_URL", &self.amqp_url)];
                let spawn = |number| ground.spawn("ms-inventory", &format!("{}-{number}", self.name), &environment);
                *instances = (1..=*wanted).map(spawn).collect::<Result<_>>()?;
            }
        }
        Ok(())
    }

    /// Waits until its database is migrated.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Echo { .. } => Ok(()),
            Kind::Inventory { instances, .. } => {
                instances.iter_mut().try_for_each(|instance| instance.wait_ready(PATIENCE))
            }
        }
    }

    /// Stops it; its queues stay, and fill.
    pub(super) fn stop(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Echo { process, .. } => process.take().map(Process::stop).transpose().map(drop),
            Kind::Inventory { instances, .. } => {
                instances.drain(..).try_for_each(|instance| instance.terminate().map(drop))
            }
        }
    }

    /// Tells its use of the processors from the servers' and the load's.
    pub(super) fn watch(&self, ground: &Ground) -> Watch {
        let servers = Watch::new().and("broker", ground.rabbitmq().pid()).and("database", ground.postgres().pid());
        self.pids().into_iter().fold(servers, |watch, pid| watch.and("service", pid))
    }

    /// Its process numbers.
    pub(super) fn pids(&self) -> Vec<i32> {
        match &self.kind {
            Kind::Echo { process, .. } => process.iter().map(Process::pid).collect(),
            Kind::Inventory { instances, .. } => instances.iter().map(Instance::pid).collect(),
        }
    }

    /// The database of ms-inventory.
    pub(super) fn database_url(&self) -> Result<&str> {
        match &self.kind {
            Kind::Inventory { database_url, .. } => Some(database_url.as_str()),
            Kind::Echo { .. } => None,
        }
        .context("the echo has no database")
    }
}
