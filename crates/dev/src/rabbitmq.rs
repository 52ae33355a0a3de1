//! A private RabbitMQ: its own node name, cookie, data, ports and `epmd`, on the loopback interface only, with the
//! management plugin on.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use self::node::{Epmd, Node};
use crate::management::Management;
use crate::process::Process;
use crate::tls::TlsFiles;

mod node;

/// The administrator of every private broker.
pub const USER: &str = "rabbit_user";
/// Its password.
pub const PASSWORD: &str = "rabbit_pass";

/// Where a private RabbitMQ should listen, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// AMQP; taken where it is free.
    pub port: Option<u16>,
    /// Management UI and API; taken where it is free.
    pub ui_port: Option<u16>,
    /// AMQP is spoken over TLS, and in no other way.
    pub tls: Option<TlsFiles>,
}

impl Options {
    /// For `cargo dev up`: the usual ports.
    pub const RUN: Self = Self { port: Some(5672), ui_port: Some(15672), tls: None };

    /// For tests: any ports.
    pub const TEST: Self = Self { port: None, ui_port: None, tls: None };
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
        let scheme = if self.node.tls.is_some() { "amqps" } else { "amqp" };
        format!("{scheme}://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", self.node.port)
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

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
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
