//! The command line of ms-inventory.

use boot::config::Broker;
use clap::{Parser, Subcommand};
use ms_inventory::config::{Config, Database};

/// Products, stock and reservations.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve GraphQL and settle orders until told to stop.
    Serve(Box<Config>),
    /// Bring the database up to date, and exit.
    Migrate(Database),
    /// Check on the live database that stock adds up; exits 1 and lists the drift where it does not.
    Doctor(Database),
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
        Command::Serve(config) => ms_inventory::serve(*config).await,
        Command::Migrate(database) => ms_inventory::database(&database)?.migrate(&ms_inventory::MIGRATIONS).await,
        Command::Doctor(database) => ms_inventory::doctor::run(&database).await,
        Command::DeadLetters { broker, command } => {
            let broker = ms_inventory::broker(&broker)?;
            command.run(&broker, ms_inventory::events::QUEUES).await
        }
    }
}
