//! The `cargo dev` command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dev::progress::Progress;
use dev::servers::{self, Purpose, Servers};
use dev::{testing, workspace};

#[derive(Parser)]
#[command(
    name = "cargo dev",
    bin_name = "cargo dev",
    about = "Runs and tests the services on private servers"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts only the test servers, leaves them running and prints their variables: eval "$(cargo dev servers)"
    Servers {
        /// Stops them again
        #[arg(long)]
        stop: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Servers { stop: false } => start_servers(),
        Command::Servers { stop: true } => {
            servers::stop(&workspace::test_dir()?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_servers() -> Result<ExitCode> {
    let dir = workspace::test_dir()?;
    let servers = match Servers::running(&dir) {
        Some(servers) => servers,
        None => Servers::start(&dir, Purpose::Test, &Progress::new())?,
    };
    println!("export {}={}", testing::DATABASE_VARIABLE, servers.database_url);
    println!("export {}={}", testing::AMQP_VARIABLE, servers.amqp_url);
    if let Some(ui) = &servers.rabbitmq_ui {
        println!("export {}={ui}", testing::RABBITMQ_UI_VARIABLE);
    }
    Ok(ExitCode::SUCCESS)
}
