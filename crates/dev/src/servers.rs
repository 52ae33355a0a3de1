//! PostgreSQL and RabbitMQ together, as running, testing and preparing need them.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::install::{self, Need};
use crate::interrupt;
use crate::management::Management;
use crate::postgres::{self, Postgres};
use crate::process;
use crate::progress::Progress;
use crate::rabbitmq::{self, RabbitMq};
use crate::workspace;

/// Where the two servers answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Servers {
    /// URL of a role that may create databases and roles.
    pub database_url: String,
    /// AMQP URL of the vhost to use.
    pub amqp_url: String,
    /// Base URL of the management UI, where it is known.
    pub rabbitmq_ui: Option<String>,
    /// Command line that reaches the private node; `None` for a broker that is not ours.
    pub rabbitmqctl: Option<String>,
}

/// What the servers are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be used: usual ports, default durability.
    Run,
    /// To be tested on: any ports, data that nobody will miss.
    Test,
}

impl Servers {
    /// Starts both servers below `dir`, side by side, and leaves them running until [`stop`]. What `DATABASE_URL` or
    /// `AMQP_URL` names is used instead of a private server.
    pub fn start(dir: &Path, purpose: Purpose, progress: &Progress) -> Result<Self> {
        process::sweep(dir);
        let foreign_database = set("DATABASE_URL");
        let foreign_broker = set("AMQP_URL");
        let needs: Vec<Need> = [
            // `psql` is needed even where the server is somebody else's.
            Some(Need::Postgres),
            foreign_broker.is_none().then_some(Need::RabbitMq),
        ]
        .into_iter()
        .flatten()
        .collect();
        install::ensure(&needs, progress)?;
        let (database_url, broker) = thread::scope(|scope| {
            let database = scope.spawn(|| match foreign_database {
                Some(url) => Ok(url),
                None => start_postgres(dir, purpose, progress),
            });
            let broker = scope.spawn(|| match foreign_broker {
                Some(amqp_url) => Ok(Broker { amqp_url, ui: set("RABBITMQ_UI_URL"), ctl: None }),
                None => start_rabbitmq(dir, purpose, progress),
            });
            (database.join(), broker.join())
        });
        let panicked = |_| anyhow!("a thread that started a server panicked");
        let database_url = database_url.map_err(panicked)??;
        let Broker { amqp_url, ui, ctl } = broker.map_err(panicked)??;
        let servers = Self { database_url, amqp_url, rabbitmq_ui: ui, rabbitmqctl: ctl };
        fs::create_dir_all(dir)?;
        fs::write(dir.join("servers.json"), serde_json::to_vec_pretty(&servers)?)?;
        Ok(servers)
    }

    /// The servers that run below `dir`, if both do.
    pub fn running(dir: &Path) -> Option<Self> {
        let servers: Self = serde_json::from_slice(&fs::read(dir.join("servers.json")).ok()?).ok()?;
        let broker_is_ours = servers.rabbitmqctl.is_some();
        let alive = (set("DATABASE_URL").as_ref() == Some(&servers.database_url) || process::runs(dir, "postgres"))
            && (!broker_is_ours || process::runs(dir, "rabbit"));
        alive.then_some(servers)
    }

    /// The management API of the private broker, as its administrator; `None` for a broker that is not ours.
    pub fn private_broker(&self) -> Option<Management> {
        let (ui, _) = self.rabbitmq_ui.as_ref().zip(self.rabbitmqctl.as_ref())?;
        Some(Management::new(ui, rabbitmq::USER, rabbitmq::PASSWORD))
    }
}

/// Stops everything below `dir`.
pub fn stop(dir: &Path) {
    let _ = fs::remove_file(dir.join("servers.json"));
    process::sweep(dir);
}

/// The test servers, started unless they run. They stay until [`release_tests`], or, kept, until [`stop_tests`].
pub fn for_tests(progress: &Progress) -> Result<Servers> {
    let dir = workspace::test_dir()?;
    let _lock = lock(&dir, || {
        progress.say("another command is starting the test servers; waiting for it");
    })?;
    match Servers::running(&dir) {
        Some(servers) => Ok(servers),
        None => {
            stop_tests()?;
            fs::create_dir_all(&dir)?;
            Servers::start(&dir, Purpose::Test, progress)
        }
    }
}

/// [`for_tests`], and from now on they are kept.
pub fn keep_for_tests(progress: &Progress) -> Result<Servers> {
    let servers = for_tests(progress)?;
    fs::write(kept_mark()?, "")?;
    Ok(servers)
}

/// Stops the test servers, unless they are kept.
pub fn release_tests() -> Result<()> {
    if kept_mark()?.exists() { Ok(()) } else { stop_tests() }
}

/// Stops the test servers and deletes their data.
pub fn stop_tests() -> Result<()> {
    let dir = workspace::test_dir()?;
    stop(&dir);
    delete(&dir)
}

/// Copies the logs of the test servers to a folder, and returns the paths of the copies.
pub fn keep_logs(folder: &Path) -> Result<Vec<String>> {
    let logs = workspace::test_dir()?.join("logs");
    let copy = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        let to = folder.join(entry.file_name());
        fs::copy(entry.path(), &to)?;
        Ok(to.display().to_string())
    };
    fs::read_dir(&logs).and_then(|entries| entries.map(copy).collect()).context("cannot keep the servers' logs")
}

/// The last lines of the test broker's log that tell of trouble with its quorum queues: from then on it may refuse what any test
/// publishes, and the fault is not the tests'.
pub fn quorum_troubles() -> Result<Vec<String>> {
    const AT_MOST: usize = 20;
    let log = fs::read_to_string(workspace::test_dir()?.join("logs/rabbit.log"))?;
    let is_trouble = |line: &&str| {
        let is_bad = ["[error]", "[warning]", "[critical]"].iter().any(|level| line.contains(level));
        is_bad && ["ra:", "ra_", "segment_writer", "WAL", "quorum"].iter().any(|part| line.contains(part))
    };
    let troubles: Vec<String> = log.lines().filter(is_trouble).map(str::to_owned).collect();
    Ok(troubles[troubles.len().saturating_sub(AT_MOST)..].to_vec())
}

fn kept_mark() -> Result<PathBuf> {
    Ok(workspace::test_dir()?.join("kept"))
}

/// Deletes all data and logs below `dir`. Nothing may run there any more.
pub fn delete(dir: &Path) -> Result<()> {
    // Where the data could not lie in the repository, a link leads to it.
    for path in [fs::read_link(dir.join("postgres")).ok(), Some(dir.to_path_buf())].into_iter().flatten() {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes sure that one command at a time works below `dir`, until the file is dropped. `busy` is told once if that
/// takes waiting.
pub fn lock(dir: &Path, busy: impl FnOnce()) -> Result<File> {
    fs::create_dir_all(dir)?;
    let path = dir.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        busy();
        file.lock()?;
    }
    Ok(file)
}

/// Makes sure that `command` works alone below `dir`, until the file is dropped: it waits for another one, stops what an earlier
/// one left behind, and a signal stops what it starts.
pub fn work_alone(dir: &Path, command: &str) -> Result<File> {
    let lock = lock(dir, || eprintln!("another {command} is at work; waiting for it"))?;
    process::sweep(dir);
    let swept = dir.to_path_buf();
    interrupt::on_signal(move |signal| {
        process::stop_starting();
        process::sweep(&swept);
        interrupt::exit_code(signal)
    })?;
    Ok(lock)
}

struct Broker {
    amqp_url: String,
    ui: Option<String>,
    ctl: Option<String>,
}

fn start_postgres(dir: &Path, purpose: Purpose, progress: &Progress) -> Result<String> {
    let step = progress.step("starting PostgreSQL");
    let options = match purpose {
        Purpose::Run => postgres::Options::RUN,
        Purpose::Test => postgres::Options::TEST,
    };
    let server = Postgres::start(dir, options)?;
    let version =
        install::postgres_programs().and_then(|programs| install::postgres_version(&programs)).unwrap_or_default();
    step.done(&format!("PostgreSQL {version} on {}", server.port()));
    let url = server.url();
    server.detach();
    Ok(url)
}

fn start_rabbitmq(dir: &Path, purpose: Purpose, progress: &Progress) -> Result<Broker> {
    let step = progress.step("starting RabbitMQ");
    let options = match purpose {
        Purpose::Run => rabbitmq::Options::RUN,
        Purpose::Test => rabbitmq::Options::TEST,
    };
    let server = RabbitMq::start(dir, options)?;
    step.done(&format!("RabbitMQ {} on {}", server.management().version()?, server.port()));
    let broker = Broker { amqp_url: server.url(), ui: Some(server.ui_url()), ctl: Some(server.rabbitmqctl()) };
    server.detach();
    Ok(broker)
}

fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}
