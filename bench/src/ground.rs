//! Where measuring happens: servers and services of its own, with default durability and nothing pinned.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use dev::install::{self, Need};
use dev::instance::{self, Instance};
use dev::management::Management;
use dev::postgres::{self, Postgres};
use dev::progress::Progress;
use dev::rabbitmq::{self, RabbitMq};
use dev::{ports, process, psql, servers, workspace};

const PATIENCE: Duration = Duration::from_secs(60);

use crate::Effort;
use crate::machine::{FOREIGN_LIMIT, Used};

/// Private servers below `.dev/bench`, new and empty. Dropping it kills them.
#[derive(Debug)]
pub struct Ground {
    dir: PathBuf,
    postgres: Postgres,
    rabbitmq: RabbitMq,
    voids: Voids,
    names: AtomicU32,
}

/// How many measurements did not count, because something else used the machine.
#[derive(Debug, Clone, Default)]
pub struct Voids(Arc<AtomicU32>);

impl Voids {
    /// Whether a measurement does not count, because something else used the machine. If so, it is counted here.
    pub fn is_void(&self, used: &Used, effort: Effort) -> bool {
        let void = used.foreign > FOREIGN_LIMIT && !effort.busy_machine;
        if void {
            self.0.fetch_add(1, Ordering::Relaxed);
            eprintln!("void: something else used {:.2} processors; measuring again", used.foreign);
        }
        void
    }

    /// So many up to now.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ground {
    /// Where the benchmark's servers live; nothing in it is worth keeping.
    pub fn folder() -> Result<PathBuf> {
        Ok(workspace::root()?.join(".dev/bench"))
    }

    /// Starts both servers on empty data.
    pub fn prepare() -> Result<Self> {
        Self::below(Self::folder()?)
    }

    /// The same in a given folder, whose content is deleted.
    pub fn below(dir: PathBuf) -> Result<Self> {
        install::ensure(&[Need::Postgres, Need::RabbitMq], &Progress::new())?;
        process::sweep_below(&dir);
        servers::delete(&dir)?;
        let postgres = Postgres::start(&dir, postgres::Options { port: None, ..postgres::Options::RUN })?;
        let rabbitmq = RabbitMq::start(&dir, rabbitmq::Options::TEST)?;
        Ok(Self { dir, postgres, rabbitmq, voids: Voids::default(), names: AtomicU32::new(1) })
    }

    /// A name of a database, vhost and service that nothing has here.
    pub fn name(&self, purpose: &str) -> String {
        format!("{purpose}_{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates an empty database and returns its superuser's URL.
    pub fn database(&self, name: &str) -> Result<String> {
        psql::execute(&self.postgres.url(), &[&format!("create database {name}")])?;
        psql::rewrite_url(&self.postgres.url(), None, name)
    }

    /// Creates an empty vhost and returns its AMQP URL.
    pub fn vhost(&self, name: &str) -> Result<String> {
        self.management().create_vhost(name)?;
        Ok(format!("amqp://{}:{}@127.0.0.1:{}/{name}", rabbitmq::USER, rabbitmq::PASSWORD, self.rabbitmq.port()))
    }

    /// The broker's management API.
    pub fn management(&self) -> Management {
        self.rabbitmq.management()
    }

    /// Starts `program serve` as `name` on a free port and waits until it is ready.
    pub fn serve(&self, program: &str, name: &str, environment: &[(&str, &str)]) -> Result<Instance> {
        let mut instance = self.spawn(program, name, environment)?;
        instance.wait_ready(PATIENCE)?;
        Ok(instance)
    }

    /// The same without the waiting.
    pub fn spawn(&self, program: &str, name: &str, environment: &[(&str, &str)]) -> Result<Instance> {
        let port = ports::any()?;
        let service = program.trim_start_matches("ms-").to_uppercase();
        let mut variables: Vec<(String, String)> =
            vec![(format!("{service}_PORT"), port.to_string()), ("BIND_ADDRESS".into(), "127.0.0.1".into())];
        // All load comes from one client.
        variables.extend(
            [("ENVIRONMENT", "development"), ("RATE_LIMIT_COST_PER_SECOND", "0")]
                .map(|(name, value)| (name.into(), value.into())),
        );
        variables.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Instance::spawn(&self.dir, name, &built(program)?, &variables, &format!("http://127.0.0.1:{port}"))
    }

    /// Measurements that did not count.
    pub fn voids(&self) -> &Voids {
        &self.voids
    }

    /// The servers' versions, and the settings by which they are durable, as lines of Markdown.
    pub fn description(&self) -> Result<String> {
        let settings =
            "server_version fsync synchronous_commit full_page_writes wal_level shared_buffers max_wal_size autovacuum";
        let show = |name| {
            psql::execute(&self.postgres.url(), &[&format!("show {name}")]).map(|value| format!("{name} {value}"))
        };
        let settings = settings.split(' ').map(show).collect::<Result<Vec<_>>>()?.join(", ");
        let management = self.management();
        let (version, erlang) = (management.version()?, management.erlang_version()?);
        Ok(format!(
            "- PostgreSQL: {settings}\n- RabbitMQ: {version} on Erlang {erlang}, quorum queues, persistent messages\n"
        ))
    }

    /// Folder of data, logs and records.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The RabbitMQ server.
    pub fn rabbitmq(&self) -> &RabbitMq {
        &self.rabbitmq
    }
}

/// The path of a program of this workspace, built as the running one is.
pub fn built(program: &str) -> Result<PathBuf> {
    instance::program(program, &workspace::profile()?)
}
