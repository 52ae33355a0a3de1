//! The two sides of a comparison: ms-inventory, and the echo.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use dev::psql;

use super::catalogue;
use super::service::Service;
use crate::Effort;
use crate::ground::{Ground, Voids, built};
use crate::load::{Client, Load, Measured, Mix, PRODUCTS, Pace};
use crate::machine::{self, Used, Watch};

/// How often a measurement is tried before the machine is said to be too busy for any.
pub(super) const TRIES: usize = 5;

/// What takes orders and answers them, and a shop that sends them.
pub(super) struct Side {
    /// The shop.
    pub(super) client: Client,
    /// Who answers it.
    pub(super) service: Service,
    /// Whose use of the processors is told apart.
    pub(super) watch: Watch,
    effort: Effort,
    voids: Voids,
}

impl Side {
    /// The ceiling.
    pub(super) async fn echo(ground: &Ground, effort: Effort) -> Result<Self> {
        Self::echo_with(ground, effort, false).await
    }

    /// The ceiling for messages such as ours: an echo with the properties that our answers have.
    pub(super) async fn echo_with_properties(ground: &Ground, effort: Effort) -> Result<Self> {
        Self::echo_with(ground, effort, true).await
    }

    async fn echo_with(ground: &Ground, effort: Effort, properties: bool) -> Result<Self> {
        let name = ground.name("echo");
        let amqp_url = ground.vhost(&name)?;
        let client = Client::open(&amqp_url).await?;
        Self::start(ground, effort, client, Service::echo(name, amqp_url, properties))
    }

    /// A number of instances of ms-inventory on a new database, with more stock of [`PRODUCTS`] products than will be
    /// sold and one product that is sold out.
    pub(super) async fn inventory(ground: &Ground, effort: Effort, instances: usize) -> Result<Self> {
        let side = Self::without_products(ground, effort, instances).await?;
        catalogue::fill(side.service.database_url()?, PRODUCTS)?;
        Ok(side)
    }

    /// The same on a database that is migrated, and empty.
    pub(super) async fn without_products(ground: &Ground, effort: Effort, instances: usize) -> Result<Self> {
        let name = ground.name("inventory");
        let (database_url, amqp_url) = (ground.database(&name)?, ground.vhost(&name)?);
        let client = Client::open(&amqp_url).await?;
        Self::start(ground, effort, client, Service::inventory(name, amqp_url, database_url, instances))
    }

    fn start(ground: &Ground, effort: Effort, client: Client, mut service: Service) -> Result<Self> {
        service.start(ground)?;
        service.wait_ready()?;
        let watch = service.watch(ground);
        Ok(Self { client, service, watch, effort, voids: ground.voids().clone() })
    }

    /// Sends a load and measures what comes of it, again if something else used the machine meanwhile.
    ///
    /// # Errors
    /// When an order is lost or is told two things, or the machine is too busy with something else.
    pub(super) async fn measure(&mut self, pace: Pace, mix: Mix) -> Result<Measured> {
        let load = Load { pace, mix, warm_up: self.effort.warm_up(), length: self.effort.length };
        self.measure_load(&load).await
    }

    /// The same with all of a load written out.
    pub(super) async fn measure_load(&mut self, load: &Load) -> Result<Measured> {
        for _ in 0..TRIES {
            let measured = self.client.measure(load, &self.watch).await?;
            if !self.is_void(&measured.used) {
                return Ok(measured);
            }
        }
        bail!("the machine is busy with something else")
    }

    /// See [`Voids::is_void`].
    pub(super) fn is_void(&self, used: &Used) -> bool {
        self.voids.is_void(used, self.effort)
    }

    /// Has ms-inventory prove that stock, holds and movements agree, and that each order that was told it has its stock
    /// has it.
    ///
    /// # Errors
    /// When they do not, with what drifted.
    pub(super) fn verify(&self) -> Result<()> {
        let database_url = self.service.database_url()?;
        let doctor =
            Command::new(built("ms-inventory")?).arg("doctor").env("INVENTORY_DATABASE_URL", database_url).output()?;
        if !doctor.status.success() {
            bail!("the doctor finds drift:\n{}", String::from_utf8_lossy(&doctor.stdout));
        }
        // A long run's first holds may have expired.
        let statement = "select count(*) from holds where order_id like 'B%' and status <> 'rejected'";
        let (told, held) = (self.client.reserved(), psql::execute(database_url, &[statement])?.parse::<u64>()?);
        ensure!(held == told, "{told} orders were told they have their stock, {held} have it");
        Ok(())
    }

    /// The most memory an instance has had resident, in MiB; of several, the largest.
    pub(super) fn peak_memory_mib(&self) -> Result<f64> {
        self.service.pids().into_iter().try_fold(0.0, |peak, pid| Ok(machine::peak_memory_mib(pid)?.max(peak)))
    }
}
