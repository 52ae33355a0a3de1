//! Orders: taken at once, whether inventory is up or not, and brought on by what inventory answers.
//!
//! In reading order: [`status`] is what an order is and becomes, [`checkout`] what it costs, [`catalogue`] what is sold,
//! [`order`] all of that in the database, [`till`] who places orders together, [`payment`] how they are paid, [`events`]
//! how answers and products arrive, [`overdue`] what is done when nothing happens, [`explain`] how an order stands in one
//! sentence, [`graphql`] what people see of it. [`scan`] is how
//! the background work finds what is due.

pub mod catalogue;
pub mod checkout;
pub mod config;
pub mod events;
pub mod explain;
pub mod graphql;
pub mod order;
pub mod overdue;
pub mod payment;
pub mod scan;
pub mod status;
pub mod till;

use std::time::Duration;

use auth::Keys;
use boot::config::{Authorities, ExposeSecret};
use boot::health::Health;
use boot::service::Running;
use database::{Database, Failures};
use messaging::Progress;
use messaging::outbox::Relay;
use messaging::session::Broker;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::Worker;

/// The service's name to the broker and the database.
pub const APP: &str = "ms-orders";

/// The schema of the database, in order.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong or one for development, the port is taken, a migration fails, or draining takes too long.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    boot::telemetry::log(config.process.log_format)?;
    config.refuse_demo_secrets()?;
    let metrics = boot::telemetry::metrics()?;
    let shutdown = boot::shutdown::on_signal()?;
    start(config, metrics, shutdown).await?.ended.await?
}

/// Starts one instance. It listens when this returns, and is ready once its database is there: without the broker it
/// takes orders, and without inventory it prices what it knows.
///
/// # Errors
/// When the configuration is wrong or the port is taken.
pub async fn start(config: Config, metrics: PrometheusHandle, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let database = database(&config.database)?;
    let broker = broker(&config.broker)?;
    let relay = Relay::new(database.pool.clone(), Duration::from_millis(config.shop.outbox_period_ms));
    let (listening, filled) = (CancellationToken::new(), CancellationToken::new());

    let trust = config.trust.begin()?;
    let routes = graphql::router(database.requests.clone(), &relay, config.shop.clone(), &config.process.http);
    let routes = trust.identified(routes, config.process.environment);
    let progress = Progress::default();
    let failures = Failures::default();
    let health = health(&shutdown, &database, &broker, &progress, &failures, &filled, trust.keys());
    let routes = boot::http::router(routes, health, metrics);
    let (pool, inventory) = (database.pool.clone(), config.inventory);
    let (shop, limits) = (config.shop, config.limits);
    let worker = Worker { broker, pool, relay, shop, limits, progress, listening, shutdown: shutdown.clone() };
    let work = async move {
        let Worker { broker, pool, relay, shop, listening, shutdown, .. } = &worker;
        let Some(migrated) = shutdown.run_until_cancelled(database.migrate(&MIGRATIONS)).await else { return Ok(()) };
        migrated?;
        tokio::join!(
            broker.run(shutdown, &worker),
            catalogue::fill::run(pool, &inventory, listening, &filled, &failures, shutdown),
            payment::run(pool, relay, shop, &failures, shutdown),
            overdue::run(pool, relay, shop, &failures, shutdown),
            trust.follow(shutdown),
        );
        Ok(())
    };
    boot::service::start(&config.process, config.port, routes, work, shutdown).await
}

/// The database, as configured.
///
/// # Errors
/// When the URL is none.
pub fn database(config: &config::Database) -> anyhow::Result<Database> {
    Database::open(&config.database_url, APP, &config.bounds)
}

/// The broker, as configured.
///
/// # Errors
/// When the URL is none.
pub fn broker(config: &boot::config::Broker) -> anyhow::Result<Broker> {
    let broker = Broker::new(config.amqp_url.expose_secret(), APP).map_err(anyhow::Error::msg)?;
    Ok(broker.trusting(config.amqp_ca_file.as_ref().map(Authorities::pem)))
}

fn health(
    shutdown: &CancellationToken,
    database: &Database,
    broker: &Broker,
    progress: &Progress,
    failures: &Failures,
    filled: &CancellationToken,
    keys: &Keys,
) -> Health {
    let (database, broker, filled, keys) = (database.clone(), broker.clone(), filled.clone(), keys.clone());
    let (progress, delivery, failures) = (progress.clone(), progress.clone(), failures.clone());
    Health::new(shutdown.clone())
        .needs("postgres", move || {
            let database = database.clone();
            async move { database.check().await }
        })
        .uses("rabbitmq", move || std::future::ready(broker.check()))
        .uses("messages", move || std::future::ready(progress.check()))
        .uses("delivery", move || std::future::ready(delivery.check_delivery()))
        .uses("background-work", move || std::future::ready(failures.check()))
        .uses("catalogue", move || {
            std::future::ready(if filled.is_cancelled() { Ok(()) } else { Err("not filled yet".to_owned()) })
        })
        .uses("token-keys", move || std::future::ready(keys.check()))
}
