//! A child process with a record on disk, so that whoever comes later can still find and stop it.
//!
//! Ctrl-C, `cargo dev down` and the clean-up after a crash all stop what the records name: one way, in one order.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::log::{self, LogReader};
use crate::process_table::Identity;

/// Pause between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a process is asked to stop, and how long it may take before it is killed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Farewell {
    signal: i32,
    patience: Duration,
}

impl Farewell {
    /// For commands that come to an end by themselves.
    pub const COMMAND: Self = Self::new(Signal::SIGTERM, Duration::from_secs(5));

    /// Sends `signal`, then waits up to `patience`.
    pub const fn new(signal: Signal, patience: Duration) -> Self {
        Self { signal: signal as i32, patience }
    }
}

/// A running child. Dropping it kills it with all its descendants, unless it was detached.
#[derive(Debug)]
pub struct Process {
    child: Child,
    record: Record,
    record_path: PathBuf,
    log_path: PathBuf,
    detached: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    identity: Identity,
    farewell: Farewell,
    spawned_at: SystemTime,
}

/// Set once this process has begun to stop everything: nothing may be started behind its back.
static STOPPING: Mutex<bool> = Mutex::new(false);

impl Process {
    /// Starts `command` in a process group of its own (the terminal's Ctrl-C is for us alone), with its output
    /// appended to `dir/logs/NAME.log` and its record in `dir/processes/NAME.json`.
    pub fn spawn(dir: &Path, name: &str, mut command: Command, farewell: Farewell) -> Result<Self> {
        let log_path = dir.join("logs").join(format!("{name}.log"));
        let record_path = dir.join("processes").join(format!("{name}.json"));
        for path in [&log_path, &record_path] {
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        if let Some(record) = Record::read(&record_path) {
            ensure!(!record.identity.lives(), "{name} already runs as process {}", record.identity.pid);
        }
        let log = File::options().create(true).append(true).open(&log_path)?;

        let stopping = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!*stopping, "{name} is not started: everything is being stopped");
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = i32::try_from(child.id())?;
        let identity = Identity::of(pid).with_context(|| format!("{name} ended at once, see {}", log_path.display()));
        let record = Record { name: name.to_owned(), identity: identity?, farewell, spawned_at: SystemTime::now() };
        fs::write(&record_path, serde_json::to_vec(&record)?)?;
        drop(stopping);
        Ok(Self { child, record, record_path, log_path, detached: false })
    }

    /// [`Self::spawn`] with an empty log.
    pub fn spawn_anew(dir: &Path, name: &str, command: Command, farewell: Farewell) -> Result<Self> {
        match fs::remove_file(dir.join("logs").join(format!("{name}.log"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Self::spawn(dir, name, command, farewell),
        }
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.record.identity.pid
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// How it ended, where it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, up to `patience`, and says how it ended, where it has.
    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.exited() {
                None if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
                ended => return ended,
            }
        }
    }

    /// Waits until `ready` says so. An error, with the end of the log, if the process ends first or `patience` does.
    pub fn wait_ready(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            let name = &self.record.name;
            if let Ok(Some(status)) = self.child.try_wait() {
                bail!("{name} ended ({status}) before it was ready:\n{}", log::tail(&self.log_path, 30));
            }
            if Instant::now() > deadline {
                bail!("{name} is not ready after {} s:\n{}", patience.as_secs(), log::tail(&self.log_path, 30));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Sends `signal` to this process alone.
    pub fn signal(&self, signal: Signal) {
        self.record.identity.signal(signal);
    }

    /// Sends `signal` to this process and all its descendants.
    pub fn signal_tree(&self, signal: Signal) {
        self.record.identity.signal_tree(signal);
    }

    /// SIGKILL to the process and all its descendants; returns when all are gone.
    pub fn kill9(&mut self) {
        kill_tree(&self.record.identity);
        // Reaps the zombie. It fails only where that has been done.
        let _ = self.child.wait();
        // A successor of the same name may have taken the record's place.
        if Record::read(&self.record_path).is_some_and(|record| record.identity == self.record.identity) {
            let _ = fs::remove_file(&self.record_path);
        }
    }

    /// Asks it to stop in its own way, waits, kills what is left, and returns how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.record.stop();
        Ok(self.child.wait()?)
    }

    /// Waits for its end, and hands every line it prints to `on_line` meanwhile.
    pub fn follow(mut self, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
        let mut output = LogReader::open(&self.log_path)?;
        loop {
            // Asked before the log is read, so that nothing printed before the end is missed.
            let ended = self.child.try_wait()?;
            output.read_lines(&mut on_line)?;
            match ended {
                Some(status) => return Ok(status),
                None => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Leaves it running after us; [`sweep`] finds it by its record.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            self.kill9();
        }
    }
}

impl Record {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn stop(&self) {
        let tree = self.identity.tree();
        if let Ok(signal) = Signal::try_from(self.farewell.signal) {
            self.identity.signal(signal);
            // A paused process hears nothing before it is woken.
            self.identity.signal_tree(Signal::SIGCONT);
        }
        gone_within(&self.identity, self.farewell.patience);
        kill_tree(&self.identity);
        // Not everybody takes their children along: cargo leaves its test binaries.
        for orphan in tree {
            kill_tree(&orphan);
        }
    }
}

/// Stops every process recorded under `dir` that still is the recorded one, the last started first.
pub fn sweep(dir: &Path) {
    let mut records: Vec<(PathBuf, Record)> = json_files(&dir.join("processes"))
        .into_iter()
        .filter_map(|path| Record::read(&path).map(|record| (path, record)))
        .collect();
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.spawned_at));
    for (path, record) in records {
        record.stop();
        let _ = fs::remove_file(path);
    }
}

/// [`sweep`] on `dir` and all folders in it.
pub fn sweep_below(dir: &Path) {
    sweep(dir);
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep_below(&entry.path());
        }
    }
}

/// From now on this program starts nothing: it is about to sweep and end.
pub fn stop_starting() {
    *STOPPING.lock().unwrap_or_else(PoisonError::into_inner) = true;
}

/// Whether the process recorded as `name` under `dir` runs.
pub fn runs(dir: &Path, name: &str) -> bool {
    Record::read(&dir.join("processes").join(format!("{name}.json"))).is_some_and(|record| record.identity.lives())
}

/// Runs `command` to its end. Its output goes to a log of its own, line by line to `on_line`, and to the error where
/// it fails.
pub fn run(dir: &Path, name: &str, command: Command, on_line: impl FnMut(&str)) -> Result<()> {
    let process = Process::spawn_anew(dir, name, command, Farewell::COMMAND)?;
    let log = process.log_path.clone();
    let status = process.follow(on_line)?;
    ensure!(status.success(), "{name} failed ({status}):\n{}", log::tail(&log, 60));
    Ok(())
}

fn kill_tree(root: &Identity) {
    let tree = root.tree();
    // The root first, so that it cannot replace a child that is being killed.
    root.signal(Signal::SIGKILL);
    for member in &tree {
        member.signal(Signal::SIGKILL);
    }
    // Nothing survives SIGKILL, except for a moment.
    for member in std::iter::once(root).chain(&tree) {
        gone_within(member, Duration::from_secs(10));
    }
}

fn gone_within(identity: &Identity, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while identity.lives() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
    true
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("json"))).collect()
}
