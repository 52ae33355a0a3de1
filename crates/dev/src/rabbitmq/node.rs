//! One node of RabbitMQ, and the name server it needs.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Options, PASSWORD, USER};
use crate::management::Management;
use crate::process::{Farewell, Process};
use crate::tls::TlsFiles;
use crate::{install, ports};

/// RabbitMQ closes its queues and connections on SIGTERM.
const FAREWELL: Farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(30));
const EPMD_FAREWELL: Farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(2));

/// The Erlang VM alone takes seconds on a small machine that compiles at the same time.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// A message that a full queue refused is dead-lettered again after 2 s, and not after RabbitMQ's 3 minutes.
const ADVANCED_CONFIGURATION: &str = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n";

/// Erlang's name server. A node starts a stray one for the whole machine unless it finds one on its port.
#[derive(Debug)]
pub(super) struct Epmd {
    pub(super) port: u16,
    pub(super) process: Process,
}

impl Epmd {
    pub(super) fn start(dir: &Path) -> Result<Self> {
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
pub(super) struct Node {
    dir: PathBuf,
    scripts: PathBuf,
    name: String,
    /// Names of all nodes of the cluster; none for a broker by itself.
    pub(super) peers: Vec<String>,
    pub(super) port: u16,
    pub(super) tls: Option<TlsFiles>,
    ui_port: u16,
    distribution_port: u16,
    epmd_port: u16,
}

impl Node {
    pub(super) fn prepare(dir: &Path, name: &str, options: Options, epmd_port: u16) -> Result<Self> {
        let pick = |wanted: Option<u16>| wanted.map_or_else(ports::any, ports::prefer);
        Ok(Self {
            dir: dir.to_path_buf(),
            scripts: install::require_rabbitmq()?,
            name: name.to_owned(),
            peers: Vec::new(),
            port: pick(options.port)?,
            tls: options.tls,
            ui_port: pick(options.ui_port)?,
            distribution_port: ports::any()?,
            epmd_port,
        })
    }

    pub(super) fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    pub(super) fn write_files(&self) -> Result<()> {
        let home = self.home();
        fs::create_dir_all(&home)?;
        let cookie = home.join(".erlang.cookie");
        if !cookie.exists() {
            fs::write(&cookie, "a-cookie-for-loopback-only")?;
            // Erlang insists.
            fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        }
        fs::write(home.join("plugins"), "[rabbitmq_management].\n")?;
        fs::write(home.join("advanced.config"), ADVANCED_CONFIGURATION)?;
        fs::write(home.join("rabbitmq.conf"), self.configuration())?;
        Ok(())
    }

    fn configuration(&self) -> String {
        let mut lines = vec![
            "management.tcp.ip = 127.0.0.1".to_owned(),
            format!("management.tcp.port = {}", self.ui_port),
            format!("default_user = {USER}"),
            format!("default_pass = {PASSWORD}"),
            "log.console = true".to_owned(),
            "log.console.level = info".to_owned(),
            "log.file = false".to_owned(),
        ];
        match &self.tls {
            None => lines.push(format!("listeners.tcp.local = 127.0.0.1:{}", self.port)),
            Some(tls) => lines.extend([
                "listeners.tcp = none".to_owned(),
                format!("listeners.ssl.local = 127.0.0.1:{}", self.port),
                format!("ssl_options.certfile = {}", tls.certificate.display()),
                format!("ssl_options.keyfile = {}", tls.key.display()),
            ]),
        }
        if !self.peers.is_empty() {
            lines.push("cluster_formation.peer_discovery_backend = classic_config".to_owned());
            let peers = self.peers.iter().zip(1..);
            lines.extend(
                peers.map(|(name, n)| format!("cluster_formation.classic_config.nodes.{n} = {name}@localhost")),
            );
        }
        lines.join("\n") + "\n"
    }

    pub(super) fn launch(&self) -> Result<Process> {
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

    pub(super) fn rabbitmqctl(&self) -> String {
        let variables = self.address().into_iter().map(|(name, value)| format!("{name}={}", shell_word(&value)));
        let program = shell_word(&self.scripts.join("rabbitmqctl").display().to_string());
        format!("env {} {program}", variables.collect::<Vec<_>>().join(" "))
    }

    pub(super) fn ui_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ui_port)
    }

    pub(super) fn management(&self) -> Management {
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
