//! The command line of ms-orders.

use boot::config::Broker;
use clap::{Parser, Subcommand};
use ms_orders::config::{Config, Database};

/// Orders: placed, priced and brought on.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take orders and bring them on until told to stop.
    Serve(Box<Config>),
    /// Bring the database up to date, and exit.
    Migrate(Database),
    /// Look at the messages that could not be handled, replay or purge them.
    DeadLetters {
        #[command(flatten)]
        broker: Broker,
        #[command(subcommand)]
        command: messaging::dead_letters::Command,
    },
}

fn main() -> anyhow::Result<()> {
    boot::stack::make_room()?;
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    match boot::config::parse::<Cli>().command {
        Command::Serve(config) => ms_orders::serve(*config).await,
        Command::Migrate(database) => ms_orders::database(&database)?.migrate(&ms_orders::MIGRATIONS).await,
        Command::DeadLetters { broker, command } => {
            let broker = ms_orders::broker(&broker)?;
            command.run(&broker, ms_orders::events::QUEUES).await
        }
    }
}
