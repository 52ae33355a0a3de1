//! Products, stock, and the engine that reserves it: never one more than there is, for all lines of an order or none.
//!
//! In reading order: [`product`] is what is sold, [`stock`] the rule by which orders get it, [`settlement`] the
//! rule by which they end, [`hold`] both rules in the database, [`ledger`] how stock came and went, [`events`] how orders arrive and answers leave, [`sweeper`] the tidying,
//! [`graphql`] what people see of it, [`doctor`] the proof that it adds up.

pub mod config;
pub mod doctor;
pub mod events;
pub mod graphql;
pub mod hold;
pub mod ledger;
pub mod product;
pub mod settlement;
pub mod stock;
pub mod sweeper;

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
pub const APP: &str = "ms-inventory";

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

/// Starts one instance. It listens when this returns, and is ready once its database and its broker are there.
///
/// # Errors
/// When the configuration is wrong or the port is taken.
pub async fn start(config: Config, metrics: PrometheusHandle, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let database = database(&config.database)?;
    let broker = broker(&config.broker)?;
    let relay = Relay::new(database.pool.clone(), Duration::from_millis(config.engine.outbox_period_ms));

    let trust = config.trust.begin()?;
    let routes = graphql::router(database.requests.clone(), relay.clone(), &config.process.http);
    let routes = trust.identified(routes, config.process.environment);
    let progress = Progress::default();
    let failures = Failures::default();
    let health = health(&shutdown, &database, &broker, &progress, &failures, trust.keys());
    let routes = boot::http::router(routes, health, metrics);
    let pool = database.pool.clone();
    let (engine, limits) = (config.engine, config.limits);
    let worker = Worker { broker, pool, relay, engine, limits, progress, shutdown: shutdown.clone() };
    let work = async move {
        let Worker { broker, pool, relay, engine, shutdown, .. } = &worker;
        let Some(migrated) = shutdown.run_until_cancelled(database.migrate(&MIGRATIONS)).await else { return Ok(()) };
        migrated?;
        tokio::join!(
            broker.run(shutdown, &worker),
            sweeper::run(pool, relay, engine, &failures, shutdown),
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
    keys: &Keys,
) -> Health {
    let (database, broker, keys) = (database.clone(), broker.clone(), keys.clone());
    let (progress, delivery, failures) = (progress.clone(), progress.clone(), failures.clone());
    Health::new(shutdown.clone())
        .needs("postgres", move || {
            let database = database.clone();
            async move { database.check().await }
        })
        .needs("rabbitmq", move || std::future::ready(broker.check()))
        .needs("messages", move || std::future::ready(progress.check()))
        .uses("delivery", move || std::future::ready(delivery.check_delivery()))
        .uses("background-work", move || std::future::ready(failures.check()))
        .uses("token-keys", move || std::future::ready(keys.check()))
}
