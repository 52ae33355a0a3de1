//! A private RabbitMQ: its own node name, cookie, data, ports and `epmd`, on the loopback interface only, with the
//! management plugin on.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use crate::management::Management;
use crate::process::{Farewell, Process};
use crate::{install, ports};

/// The administrator of every private broker.
pub const USER: &str = "rabbit_user";
/// Its password.
pub const PASSWORD: &str = "rabbit_pass";

/// RabbitMQ closes its queues and connections on SIGTERM.
const FAREWELL: Farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(30));
const EPMD_FAREWELL: Farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(2));

/// The Erlang VM alone takes seconds on a small machine that compiles at the same time.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Where a private RabbitMQ should listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// AMQP; taken where it is free.
    pub port: Option<u16>,
    /// Management UI and API; taken where it is free.
    pub ui_port: Option<u16>,
}

impl Options {
    /// For `cargo dev up`: the usual ports.
    pub const RUN: Self = Self { port: Some(5672), ui_port: Some(15672) };

    /// For tests: any ports.
    pub const TEST: Self = Self { port: None, ui_port: None };
}

/// A running node: a broker by itself, or one of a [`cluster`]. Dropping it kills it; its data stays.
#[derive(Debug)]
pub struct RabbitMq {
    node: Node,
    process: Process,
    // After the process: it is dropped, and so killed, last.
    epmd: Arc<Epmd>,
}

impl RabbitMq {
    /// Starts a broker on the data below `dir`, which is created at the first start.
    pub fn start(dir: &Path, options: Options) -> Result<Self> {
        let epmd = Arc::new(Epmd::start(dir)?);
        Self::start_node(Node::prepare(dir, "rabbit", options, epmd.port)?, epmd)
    }

    fn start_node(node: Node, epmd: Arc<Epmd>) -> Result<Self> {
        node.write_files().with_context(|| format!("cannot prepare {}", node.home().display()))?;
        let process = node.launch()?;
        Ok(Self { node, process, epmd })
    }

    /// AMQP URL of the default vhost.
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", self.node.port)
    }

    /// The port AMQP is spoken on.
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// Base URL of the management UI and API.
    pub fn ui_url(&self) -> String {
        self.node.ui_url()
    }

    /// The management API.
    pub fn management(&self) -> Management {
        self.node.management()
    }

    /// A shell command line that reaches this node, to be followed by what `rabbitmqctl` is to do.
    pub fn rabbitmqctl(&self) -> String {
        self.node.rabbitmqctl()
    }

    /// Kills the broker the hard way.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Freezes the broker: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process.signal_tree(Signal::SIGSTOP);
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.process.signal_tree(Signal::SIGCONT);
    }

    /// Starts it again on the same ports and data, killing it first where it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        self.process = self.node.launch()?;
        Ok(())
    }

    /// Stops it the orderly way.
    pub fn stop(self) -> Result<()> {
        self.process.stop().map(drop)
    }

    /// Leaves it running; [`crate::process::sweep`] on its folder stops it.
    pub fn detach(self) {
        self.process.detach();
        if let Some(epmd) = Arc::into_inner(self.epmd) {
            epmd.process.detach();
        }
    }
}

/// Starts `size` nodes that form one cluster, the first before the others, which join it side by side.
pub fn cluster(dir: &Path, size: usize) -> Result<Vec<RabbitMq>> {
    let epmd = Arc::new(Epmd::start(dir)?);
    let names: Vec<String> = (1..=size).map(|number| format!("rabbit{number}")).collect();
    let mut nodes = names.iter().map(|name| {
        let mut node = Node::prepare(dir, name, Options::TEST, epmd.port)?;
        node.peers.clone_from(&names);
        Ok(node)
    });
    let first = nodes.next().context("a cluster has at least one node")??;
    let mut started = vec![RabbitMq::start_node(first, Arc::clone(&epmd))?];
    let others: Vec<Node> = nodes.collect::<Result<_>>()?;
    let joined: Vec<Result<RabbitMq>> = thread::scope(|scope| {
        let join = |node| scope.spawn(|| RabbitMq::start_node(node, Arc::clone(&epmd)));
        let joining: Vec<_> = others.into_iter().map(join).collect();
        let panicked = |_| Err(anyhow!("a thread that started a node panicked"));
        joining.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    for node in joined {
        started.push(node?);
    }
    Ok(started)
}

/// Erlang's name server. A node starts a stray one for the whole machine unless it finds one on its port.
#[derive(Debug)]
struct Epmd {
    port: u16,
    process: Process,
}

impl Epmd {
    fn start(dir: &Path) -> Result<Self> {
        let port = ports::any()?;
        let mut command = Command::new(install::on_path("epmd").context("Erlang's epmd is not on the path")?);
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        let mut process = Process::spawn(dir, "epmd", command, EPMD_FAREWELL)?;
        process.wait_ready(Duration::from_secs(10), || listens(port))?;
        Ok(Self { port, process })
    }
}

/// One node: what is decided once and stays the same when it is started again.
#[derive(Debug)]
struct Node {
    dir: PathBuf,
    scripts: PathBuf,
    name: String,
    /// Names of all nodes of the cluster; none for a broker by itself.
    peers: Vec<String>,
    port: u16,
    ui_port: u16,
    distribution_port: u16,
    epmd_port: u16,
}

impl Node {
    fn prepare(dir: &Path, name: &str, options: Options, epmd_port: u16) -> Result<Self> {
        let pick = |wanted: Option<u16>| wanted.map_or_else(ports::any, ports::prefer);
        Ok(Self {
            dir: dir.to_path_buf(),
            scripts: install::require_rabbitmq()?,
            name: name.to_owned(),
            peers: Vec::new(),
            port: pick(options.port)?,
            ui_port: pick(options.ui_port)?,
            distribution_port: ports::any()?,
            epmd_port,
        })
    }

    fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn write_files(&self) -> Result<()> {
        let home = self.home();
        fs::create_dir_all(&home)?;
        let cookie = home.join(".erlang.cookie");
        if !cookie.exists() {
            fs::write(&cookie, "a-cookie-for-loopback-only")?;
            // Erlang insists.
            fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        }
        fs::write(home.join("plugins"), "[rabbitmq_management].\n")?;
        fs::write(home.join("advanced.config"), "[].\n")?;
        fs::write(home.join("rabbitmq.conf"), self.configuration())?;
        Ok(())
    }

    fn configuration(&self) -> String {
        let mut lines = vec![
            format!("listeners.tcp.local = 127.0.0.1:{}", self.port),
            "management.tcp.ip = 127.0.0.1".to_owned(),
            format!("management.tcp.port = {}", self.ui_port),
            format!("default_user = {USER}"),
            format!("default_pass = {PASSWORD}"),
            "log.console = true".to_owned(),
            "log.console.level = info".to_owned(),
            "log.file = false".to_owned(),
        ];
        if !self.peers.is_empty() {
            lines.push("cluster_formation.peer_discovery_backend = classic_config".to_owned());
            let peers = self.peers.iter().zip(1..);
            lines.extend(
                peers.map(|(name, n)| format!("cluster_formation.classic_config.nodes.{n} = {name}@localhost")),
            );
        }
        lines.join("\n") + "\n"
    }

    fn launch(&self) -> Result<Process> {
        let mut command = Command::new(self.scripts.join("rabbitmq-server"));
        command.envs(self.environment()).current_dir(self.home());
        let mut process = Process::spawn(&self.dir, &self.name, command, FAREWELL)?;
        let management = self.management();
        process.wait_ready(START_PATIENCE, || listens(self.port) && management.version().is_ok())?;
        Ok(process)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let home = self.home();
        let file = |name: &str| home.join(name).display().to_string();
        let mut environment = self.address();
        environment.extend([
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string()),
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins")),
            ("RABBITMQ_MNESIA_BASE", file("data")),
            ("RABBITMQ_LOG_BASE", file("log")),
            ("RABBITMQ_SCHEMA_DIR", file("schema")),
            ("RABBITMQ_PID_FILE", file("node.pid")),
            // Without a shell between us and the Erlang VM, whose own handler of SIGTERM stops the broker cleanly.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
            // A developer's machine runs a compiler, two databases and a browser beside it.
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
        ]);
        environment
    }

    /// What a tool needs to find the node and to be let in.
    fn address(&self) -> Vec<(&'static str, String)> {
        let home = self.home();
        vec![
            ("HOME", home.display().to_string()),
            ("RABBITMQ_CONF_ENV_FILE", home.join("no-environment-file").display().to_string()),
            ("RABBITMQ_NODENAME", format!("{}@localhost", self.name)),
            ("ERL_EPMD_PORT", self.epmd_port.to_string()),
        ]
    }

    fn rabbitmqctl(&self) -> String {
        let variables = self.address().into_iter().map(|(name, value)| format!("{name}={}", shell_word(&value)));
        let program = shell_word(&self.scripts.join("rabbitmqctl").display().to_string());
        format!("env {} {program}", variables.collect::<Vec<_>>().join(" "))
    }

    fn ui_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ui_port)
    }

    fn management(&self) -> Management {
        Management::new(&self.ui_url(), USER, PASSWORD)
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn shell_word(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.:@%+".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
