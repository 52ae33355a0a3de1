//! Orders: taken at once, whether inventory is up or not, and brought on by what inventory answers.
//!
//! In reading order: [`status`] is what an order is and becomes, [`checkout`] what it costs, [`catalogue`] what is sold,
//! [`order`] all of that in the database, [`events`] how answers and products arrive, [`reask`] how an order that was
//! never answered is asked for again, [`graphql`] what people see of it.

pub mod catalogue;
pub mod checkout;
pub mod config;
pub mod events;
pub mod graphql;
pub mod order;
pub mod reask;
pub mod status;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use boot::config::ExposeSecret;
use boot::health::Health;
use messaging::outbox::Relay;
use messaging::session::{self, Broker};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::Worker;

/// The service's name to the broker and the database.
pub const APP: &str = "ms-orders";

/// The schema of the database, in order.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// A service that has been started.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when the service has.
    pub ended: JoinHandle<anyhow::Result<()>>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong, the port is taken, a migration fails, or draining takes too long.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    boot::telemetry::log(config.process.log_format)?;
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
    let pool = boot::database::pool(&config.database.database_url, APP, &config.database.bounds)?;
    let broker = broker(&config.broker)?;
    let relay = Relay::new(pool.clone(), Duration::from_millis(config.shop.outbox_period_ms));
    let (migrated, filled) = (CancellationToken::new(), CancellationToken::new());

    let listener = TcpListener::bind((config.process.bind_address, config.port)).await.context("cannot listen")?;
    let address = listener.local_addr()?;
    let http_stop = CancellationToken::new();
    let health = health(&shutdown, &pool, &migrated, &broker, &filled);
    let routes = graphql::router(pool.clone(), relay.clone(), config.shop.clone());
    let serving = boot::http::serve(listener, boot::http::router(routes, health, metrics), http_stop.clone());

    let (listening, inventory_url) = (CancellationToken::new(), config.inventory_url);
    let worker = Worker { broker, pool, relay, shop: config.shop, listening, shutdown: shutdown.clone() };
    let work = async move {
        let Worker { broker, pool, relay, shop, listening, shutdown } = &worker;
        let Some(ended) = shutdown.run_until_cancelled(boot::database::migrate(pool, &MIGRATIONS)).await else {
            return Ok(());
        };
        ended?;
        migrated.cancel();
        tokio::join!(
            broker.run(shutdown, &worker),
            catalogue::fill::run(pool, &inventory_url, listening, &filled, shutdown),
            reask::run(pool, relay, shop, shutdown),
        );
        Ok(())
    };
    let whole = async move {
        // Requests are answered for as long as work is being finished, so that health tells of the draining.
        let work = async { work.await.inspect_err(|_| http_stop.cancel()).inspect(|()| http_stop.cancel()) };
        tokio::try_join!(work, serving).map(|_| ())
    };
    let limit = Duration::from_secs(config.process.drain_timeout_seconds);
    let ended = tokio::spawn(async move { boot::shutdown::bounded(whole, &shutdown, limit).await });
    Ok(Running { address, ended })
}

/// The broker, as configured.
///
/// # Errors
/// When the URL is none.
pub fn broker(config: &config::Broker) -> anyhow::Result<Broker> {
    Broker::new(config.amqp_url.expose_secret(), APP).map_err(anyhow::Error::msg)
}

/// Brings the database up to date, waiting for it to be there.
///
/// # Errors
/// When the URL is none or a migration fails.
pub async fn migrate(database: &config::Database) -> anyhow::Result<()> {
    let pool = boot::database::pool(&database.database_url, APP, &database.bounds)?;
    boot::database::migrate(&pool, &MIGRATIONS).await
}

fn health(
    shutdown: &CancellationToken,
    pool: &PgPool,
    migrated: &CancellationToken,
    broker: &Broker,
    filled: &CancellationToken,
) -> Health {
    let (pool, migrated, broker, filled) = (pool.clone(), migrated.clone(), broker.clone(), filled.clone());
    Health::new(shutdown.clone())
        .needs("postgres", move || {
            let (pool, migrated) = (pool.clone(), migrated.clone());
            async move {
                sqlx::query("select 1").execute(&pool).await.map_err(|error| error.to_string())?;
                if migrated.is_cancelled() { Ok(()) } else { Err("not migrated yet".to_owned()) }
            }
        })
        .uses("rabbitmq", move || {
            std::future::ready(match broker.status() {
                session::Status::Up => Ok(()),
                session::Status::Down(reason) => Err(reason),
            })
        })
        .uses("catalogue", move || {
            std::future::ready(if filled.is_cancelled() { Ok(()) } else { Err("not filled yet".to_owned()) })
        })
}
