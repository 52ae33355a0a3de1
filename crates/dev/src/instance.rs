//! A built service as a child process: what `cargo dev up` runs, and what end-to-end tests break.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use ureq::Agent;

use crate::process::{Farewell, Process};
use crate::workspace;

/// Services drain on SIGTERM: they finish what they took and take no more.
const FAREWELL: Farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(15));

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub struct Instance {
    url: String,
    process: Process,
}

impl Instance {
    /// Starts `program serve` with `environment`. Its log and its record go below `dir`, under `name`. `url` is where
    /// it will answer, without a path.
    pub fn spawn(dir: &Path, name: &str, program: &Path, environment: &[(String, String)], url: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("serve").envs(environment.iter().map(|(name, value)| (name, value))).current_dir(dir);
        let process = Process::spawn(dir, name, command, FAREWELL)?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), process })
    }

    /// Waits until `/health/ready` answers 200. An error, with the end of the service's log, if it ends before or
    /// `patience` does.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        self.wait_for("/health/ready", patience)
    }

    /// [`Self::wait_ready`], and until it has everything it uses as well: `/health` answers 200.
    pub fn wait_up(&mut self, patience: Duration) -> Result<()> {
        self.wait_for("/health", patience)
    }

    fn wait_for(&mut self, path: &str, patience: Duration) -> Result<()> {
        let agent = agent();
        let url = format!("{}{path}", self.url);
        self.process.wait_ready(patience, || agent.get(&url).call().is_ok())
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Where its log goes.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// How it ended, where it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Kills it the hard way.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to drain and stop, and returns how it ended; after 15 s it is killed.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.stop()
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.process.signal_tree(Signal::SIGSTOP);
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.process.signal_tree(Signal::SIGCONT);
    }

    /// Leaves it running; [`crate::process::sweep`] on its folder stops it.
    pub fn detach(self) {
        self.process.detach();
    }
}

/// The path of a program of this workspace, as cargo built it beside the running one.
pub fn program(name: &str, profile: &str) -> Result<PathBuf> {
    let path = workspace::programs(profile)?.join(name);
    ensure!(path.is_file(), "{} is not built: cargo build --bin {name}", path.display());
    Ok(path)
}

fn agent() -> Agent {
    Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).proxy(None).build().into()
}
