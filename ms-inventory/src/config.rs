//! What ms-inventory can be told, by flags or environment.

use std::time::Duration;

use auth::config::Trust;
use boot::config::{Broker, Process, SecretString};
use clap::Args;
use database::Bounds;
use messaging::consumer::Limits;

/// How to reach the database; all that most commands need.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The database, as a postgres:// URL.
    #[arg(
        long,
        env = "INVENTORY_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://inventory:inventory@127.0.0.1:5432/inventory",
        hide_default_value = true
    )]
    pub database_url: SecretString,

    /// What may be asked of it.
    #[command(flatten)]
    pub bounds: Bounds,
}

/// Everything `serve` can be told.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// How to listen, log and stop.
    #[command(flatten)]
    pub process: Process,

    /// The port of GraphQL, health and metrics; 0 picks a free one.
    #[arg(long, env = "INVENTORY_PORT", default_value_t = 8000)]
    pub port: u16,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// The broker.
    #[command(flatten)]
    pub broker: Broker,

    /// How much its messages are taken at once, and for how long.
    #[command(flatten)]
    pub limits: Limits,

    /// Whose tokens are trusted.
    #[command(flatten)]
    pub trust: Trust,

    /// How the reservation engine works.
    #[command(flatten)]
    pub engine: Engine,
}

impl Config {
    /// See [`boot::demo::refuse`].
    ///
    /// # Errors
    /// When a secret is for development, and this is not.
    pub fn refuse_demo_secrets(&self) -> anyhow::Result<()> {
        let secrets = [("INVENTORY_DATABASE_URL", &self.database.database_url), ("AMQP_URL", &self.broker.amqp_url)];
        boot::demo::refuse(self.process.environment, &secrets)
    }
}

/// How the reservation engine works.
#[derive(Debug, Clone, Args)]
pub struct Engine {
    /// How long stock is held for an order that is not paid, in seconds.
    #[arg(long, env = "HOLD_TTL_SECONDS", default_value_t = 15 * 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub hold_ttl_seconds: u32,

    /// How often the sweeper looks for holds whose time ran out, in milliseconds. It only tidies: the engine takes
    /// what is due by itself when it is short.
    #[arg(long, env = "SWEEP_PERIOD_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_period_ms: u64,

    /// How often the relay looks for events that were not announced to it, in milliseconds.
    #[arg(long, env = "OUTBOX_PERIOD_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub outbox_period_ms: u64,

    /// How long an idempotency key of adjustStock keeps its first answer, in hours.
    #[arg(long, env = "IDEMPOTENCY_TTL_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    pub idempotency_ttl_hours: u32,
}

impl Engine {
    /// See [`Self::hold_ttl_seconds`].
    pub fn hold_ttl(&self) -> Duration {
        Duration::from_secs(self.hold_ttl_seconds.into())
    }
}
