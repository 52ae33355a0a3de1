//! The command line of ms-users.

use clap::{Parser, Subcommand};
use ms_users::config::{Config, Database, KeyEncryption};
use ms_users::signing;

/// Accounts, and the tokens by which the other services know them.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register and sign in people until told to stop.
    Serve(Box<Config>),
    /// Bring the database up to date, and exit.
    Migrate(Database),
    /// Look at the keys that sign tokens, or have a new one take over.
    Keys {
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        keys: KeyEncryption,
        #[command(subcommand)]
        command: signing::Command,
    },
}

fn main() -> anyhow::Result<()> {
    boot::stack::make_room()?;
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    match boot::config::parse::<Cli>().command {
        Command::Serve(config) => ms_users::serve(*config).await,
        Command::Migrate(database) => ms_users::database(&database)?.migrate(&ms_users::MIGRATIONS).await,
        Command::Keys { database, keys, command } => {
            let seal = signing::Seal::of(&keys.key_encryption_secret)?;
            command.run(&ms_users::database(&database)?.pool, &seal).await
        }
    }
}
