//! The `cargo dev` command line.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dev::check::Selection;
use dev::progress::Progress;
use dev::servers;
use dev::status::Status;
use dev::{accounts, advisories, bench, check, fuzz, install, interrupt, mutants, testing, up, workspace};

#[derive(Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", about = "Runs and tests the services on private servers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts PostgreSQL, RabbitMQ and the services, with sample data, and prints every address
    Up {
        /// Returns when everything is ready and leaves it running
        #[arg(long)]
        detach: bool,
        /// Runs optimized services
        #[arg(long)]
        release: bool,
        #[arg(long, hide = true)]
        supervise: bool,
    },
    /// Stops what `up` started; the data stays
    Down,
    /// Stops what `up` started and deletes its data
    Reset,
    /// Says what runs and where
    Status {
        /// One object for scripts
        #[arg(long)]
        json: bool,
    },
    /// Prints an access token of a demo account, valid for 15 minutes
    Token {
        /// admin or user
        #[arg(default_value = "admin")]
        role: String,
    },
    /// Opens psql on a service's database
    Psql {
        /// inventory, orders or users
        name: String,
        /// Handed on to psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checks format, lints and recorded queries and runs all tests, on servers of its own; or only some tests
    Test {
        /// Only the tests whose path contains this
        filter: Option<String>,
        /// Only this package's tests
        #[arg(short, long)]
        package: Option<String>,
        /// Fuzzes the parsers of outside input instead, or those whose name contains the filter
        #[arg(long, conflicts_with = "package")]
        fuzz: bool,
        /// Runs the tests that take long as well
        #[arg(long, conflicts_with = "fuzz")]
        long: bool,
        /// How long each of them is fuzzed
        #[arg(long, default_value_t = 60, requires = "fuzz", value_name = "N")]
        seconds: u32,
        /// Changes the pure rules in one place after the other instead, and names the changes that fail no test; with the
        /// filter only in files whose path contains it
        #[arg(long, conflicts_with_all = ["package", "fuzz", "long"])]
        mutants: bool,
    },
    /// Measures how fast it is, as ratios in one run on this machine; --help lists what can be measured
    #[command(disable_help_flag = true)]
    Bench {
        /// Handed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Records the queries of each service in its .sqlx, after a change of SQL or of the schema
    Prepare,
    /// Renews the snapshot of advisories, which is used where the newest cannot be fetched
    Advisories {
        /// A copy of github.com/RustSec/advisory-db; without one it is cloned
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
    /// Starts only the test servers, leaves them running and prints their variables: eval "$(cargo dev servers)"
    Servers {
        /// Stops them and deletes their data
        #[arg(long)]
        stop: bool,
    },
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse().command);
    interrupt::yield_to_it();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { supervise: true, release, .. } => return up::supervise_detached(up::Options { release }),
        Command::Up { detach: true, release, .. } => return up::background(up::Options { release }),
        Command::Up { release, .. } => return up::foreground(up::Options { release }),
        Command::Down => up::down()?,
        Command::Reset => up::reset()?,
        Command::Status { json } => print_status(json)?,
        Command::Token { role } => println!("{}", accounts::token(&running()?.users, &role)?),
        Command::Psql { name, arguments } => psql(&name, &arguments)?,
        Command::Test { fuzz: true, filter, seconds, .. } => return fuzz::run(&fuzz::Selection { filter, seconds }),
        Command::Test { mutants: true, filter, .. } => return mutants::run(filter.as_deref()),
        Command::Test { filter, package, long, .. } => return check::run(&Selection { filter, package, long }),
        Command::Bench { arguments } => return bench::run(&arguments),
        Command::Prepare => return check::record_queries(),
        Command::Advisories { from } => advisories::renew(from.as_deref())?,
        Command::Servers { stop: false } => start_servers()?,
        Command::Servers { stop: true } => servers::stop_tests()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn running() -> Result<Status> {
    Status::of(&workspace::up_dir()?).context("nothing runs; cargo dev up starts it")
}

fn print_status(json: bool) -> Result<()> {
    let status = running()?;
    if json {
        let mut object = serde_json::to_value(&status)?;
        object["admin_token"] = accounts::admin_token(&status.users)?.into();
        println!("{}", serde_json::to_string_pretty(&object)?);
    } else {
        println!("{status}");
    }
    Ok(())
}

fn psql(name: &str, arguments: &[String]) -> Result<()> {
    let status = running()?;
    let url = status.databases.get(name).with_context(|| {
        let names: Vec<&str> = status.databases.keys().map(String::as_str).collect();
        format!("no database {name}; there are {}", names.join(" and "))
    })?;
    let mut command = std::process::Command::new(install::require_postgres()?.join("psql"));
    Err(command.arg("--dbname").arg(url).args(arguments).exec()).context("cannot run psql")
}

fn start_servers() -> Result<()> {
    let servers = servers::keep_for_tests(&Progress::new())?;
    for (name, value) in testing::environment(&servers) {
        println!("export {name}={value}");
    }
    Ok(())
}
