//! Configuration by flags, environment and files.

mod authorities;
mod http;
mod secrets;

use std::collections::HashMap;
use std::net::IpAddr;

use clap::{Arg, Args, Command, Parser};

pub use authorities::Authorities;
pub use http::{Http, Origin};
pub use secrecy::{ExposeSecret, SecretString};

/// Reads the command line and the environment, after adding what `.env` and `.dev/env` set and the environment does
/// not: `cargo dev up` writes the latter, so that a command typed by hand finds the servers it started. A secret may
/// stand in a file instead, which a variable with `_FILE` at the end of its name tells; see [`secrets`].
pub fn parse<C: Parser>() -> C {
    let mut sources = vec![environment()];
    for file in [".env", ".dev/env"] {
        // Most of the time neither is there.
        let Ok(variables) = dotenvy::from_filename_iter(file) else { continue };
        sources.push(variables.flatten().collect());
        dotenvy::from_filename(file).ok();
    }
    // Files first: a secret whose variable is empty may be in one.
    let read = secrets::read(C::command(), &sources).map(without_empty);
    let parsed = read.and_then(|command| {
        let mut again = command.clone();
        C::from_arg_matches_mut(&mut command.get_matches()).map_err(|error| error.format(&mut again))
    });
    parsed.unwrap_or_else(|error| error.exit())
}

/// Has a variable that is set to nothing count as none, as compose files mean it.
fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| if is_empty(&arg) { arg.env(None) } else { arg }).mut_subcommands(without_empty)
}

/// What the process was given; what is not UTF-8 is no setting.
fn environment() -> HashMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(_, value)| !value.is_empty()).collect()
}

/// What every service can be told about how it listens, logs and stops.
#[derive(Debug, Clone, Args)]
pub struct Process {
    /// Where it runs: in `development` secrets and accounts that everybody knows are allowed.
    #[arg(long, env = "ENVIRONMENT", default_value = "production")]
    pub environment: Environment,

    /// The address to listen on.
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1")]
    pub bind_address: IpAddr,

    /// How HTTP is served.
    #[command(flatten)]
    pub http: Http,

    /// How to write the log: `text` for people, `json` for machines.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// How long to finish what was begun when told to stop, in seconds. Less than the 15 s that `cargo dev` and the 30 s
    /// that Kubernetes give.
    #[arg(long, env = "DRAIN_TIMEOUT_SECONDS", default_value_t = 10)]
    pub drain_timeout_seconds: u64,
}

/// How to reach the broker.
#[derive(Debug, Clone, Args)]
pub struct Broker {
    /// The broker, as an amqp:// URL, or amqps:// over TLS.
    #[arg(
        long,
        env = "AMQP_URL",
        hide_env_values = true,
        default_value = "amqp://rabbit_user:rabbit_pass@127.0.0.1:5672/%2f",
        hide_default_value = true
    )]
    pub amqp_url: SecretString,

    /// A PEM file of the authorities whose certificates an amqps:// broker may show, beside the public ones.
    #[arg(long, env = "AMQP_CA_FILE", value_parser = Authorities::read)]
    pub amqp_ca_file: Option<Authorities>,
}

/// Where a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Environment {
    /// On a machine where nothing is to be protected.
    Development,
    /// Anywhere else.
    Production,
}

/// How to write the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
