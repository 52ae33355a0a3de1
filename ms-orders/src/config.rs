//! What ms-orders can be told, by flags or environment.

use std::time::Duration;

use auth::config::Trust;
use boot::config::{Authorities, Broker, Process, SecretString};
use clap::Args;
use database::Bounds;
use messaging::consumer::Limits;
use rust_decimal::Decimal;

/// How to reach the database; all that most commands need.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The database, as a postgres:// URL.
    #[arg(
        long,
        env = "ORDERS_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://orders:orders@127.0.0.1:5432/orders",
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
    #[arg(long, env = "ORDERS_PORT", default_value_t = 8001)]
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

    /// The service next to this one.
    #[command(flatten)]
    pub inventory: Inventory,

    /// Whose tokens are trusted.
    #[command(flatten)]
    pub trust: Trust,

    /// How orders are taken.
    #[command(flatten)]
    pub shop: Shop,
}

impl Config {
    /// See [`boot::demo::refuse`].
    ///
    /// # Errors
    /// When a secret is for development, and this is not.
    pub fn refuse_demo_secrets(&self) -> anyhow::Result<()> {
        let secrets = [("ORDERS_DATABASE_URL", &self.database.database_url), ("AMQP_URL", &self.broker.amqp_url)];
        boot::demo::refuse(self.process.environment, &secrets)
    }
}

/// How to reach ms-inventory.
#[derive(Debug, Clone, Args)]
pub struct Inventory {
    /// Where inventory answers, without a path. It is asked for all products at each start and once in a while, in case a
    /// change was missed.
    #[arg(long, env = "INVENTORY_URL", default_value = "http://127.0.0.1:8000")]
    pub inventory_url: String,

    /// A PEM file of the authorities whose certificates inventory may show over https://; those the system trusts where
    /// it is not set.
    #[arg(long, env = "INVENTORY_CA_FILE", value_parser = Authorities::read)]
    pub inventory_ca_file: Option<Authorities>,

    /// How long after it was asked for all products inventory is asked for them again at the latest, in seconds; at the
    /// earliest after half of it, so that instances do not ask together. A change that was lost is missed for so long.
    #[arg(long, env = "CATALOGUE_FILL_PERIOD_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub catalogue_fill_period_seconds: u64,
}

/// How orders are taken.
#[derive(Debug, Clone, Args)]
pub struct Shop {
    /// The fee on an order's subtotal, in per cent.
    #[arg(long, env = "FEE_PERCENT", default_value = "20", value_parser = percent)]
    pub fee_percent: Decimal,

    /// How long after its stock is held an order is paid, in seconds.
    #[arg(long, env = "PAYMENT_DELAY_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub payment_delay_seconds: u32,

    /// How much one account may have unpaid at once.
    #[command(flatten)]
    pub unpaid: UnpaidLimits,

    /// How often payments that are due are looked for, in milliseconds.
    #[arg(long, env = "PAYMENT_PERIOD_MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..))]
    pub payment_period_ms: u64,

    /// How long an idempotency key stands for its first request, in hours.
    #[arg(long, env = "IDEMPOTENCY_TTL_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    pub idempotency_ttl_hours: u32,

    /// How long an order waits for inventory's answer before it is asked for again, in seconds; each next wait is
    /// twice as long, up to a day. More than a broker's restart takes, so that only what is really lost is asked again.
    /// Inventory is asked as long after the end of a hold, if it has not told of it.
    #[arg(long, env = "REASK_AFTER_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub reask_after_seconds: u32,

    /// How often overdue orders are looked for, in milliseconds.
    #[arg(long, env = "REASK_PERIOD_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub reask_period_ms: u64,

    /// How long after it was placed, or its hold has ended, an order is cancelled that inventory never answered, in hours.
    /// More than any outage, so that only what cannot be answered is given up.
    #[arg(long, env = "GIVE_UP_AFTER_HOURS", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    pub give_up_after_hours: u32,

    /// How often the relay looks for events that were not announced to it, in milliseconds.
    #[arg(long, env = "OUTBOX_PERIOD_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub outbox_period_ms: u64,
}

/// How much one account may have unpaid at once, PENDING or CONFIRMED: so much stock it can keep from others without paying.
///
/// A person has a few orders unpaid for some seconds. The defaults are for a business that orders by a program, some twenty
/// orders a second while each is paid after ten.
#[derive(Debug, Clone, Copy, Args)]
pub struct UnpaidLimits {
    /// How many orders one account may have unpaid at once; 0 for any number. An ADMIN's orders are not limited.
    #[arg(long, env = "MAX_UNPAID_ORDERS", default_value_t = 200)]
    pub max_unpaid_orders: u32,

    /// How many units one account may have in unpaid orders at once, whatever the products; 0 for any number.
    #[arg(long, env = "MAX_UNPAID_UNITS", default_value_t = 10_000)]
    pub max_unpaid_units: u32,
}

/// How long orders wait for what comes next.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For inventory's answer.
    pub answer: Duration,
    /// For their payment to become due.
    pub payment: Duration,
}

impl Shop {
    /// See [`Self::reask_after_seconds`] and [`Self::payment_delay_seconds`].
    pub fn waits(&self) -> Waits {
        Waits {
            answer: Duration::from_secs(self.reask_after_seconds.into()),
            payment: Duration::from_secs(self.payment_delay_seconds.into()),
        }
    }
}

fn percent(text: &str) -> Result<Decimal, String> {
    match text.parse::<Decimal>() {
        Ok(percent) if (Decimal::ZERO..=Decimal::ONE_HUNDRED).contains(&percent) && percent.scale() <= 4 => Ok(percent),
        _ => Err("a fee is between 0 and 100, with at most 4 decimal places".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_is_a_percentage() {
        for fine in ["0", "20", "7.25", "100"] {
            assert_eq!(percent(fine), Ok(fine.parse().unwrap()));
        }
        for wrong in ["-1", "100.01", "0.00001", "NaN", "20 %", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
