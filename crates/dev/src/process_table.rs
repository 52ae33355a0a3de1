//! The processes of this machine: who lives, since when, and who is whose child.

use std::collections::HashMap;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that can be told from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it started, in the operating system's own words: only good for comparing.
    pub started: String,
}

impl Identity {
    /// Who has this number now; `None` where nobody does, or only a zombie nobody has waited for.
    pub fn of(pid: i32) -> Option<Self> {
        let entry = system::entry(pid)?;
        entry.lives.then_some(Self { pid, started: entry.started })
    }

    /// Whether that very process still runs.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends `signal`, unless the process is gone and its number perhaps somebody else's.
    pub fn signal(&self, signal: Signal) {
        if self.lives() {
            // It may end in this very moment; then there is nothing to do.
            let _ = signal::kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Sends `signal` to the process and all that descend from it, whatever process group or session they moved to
    /// (PostgreSQL's backends make their own).
    pub fn signal_tree(&self, signal: Signal) {
        let tree = self.tree();
        self.signal(signal);
        for member in tree {
            member.signal(signal);
        }
    }

    /// All living descendants, without the process itself.
    pub fn tree(&self) -> Vec<Self> {
        if !self.lives() {
            return Vec::new();
        }
        let mut children: HashMap<i32, Vec<Self>> = HashMap::new();
        for (pid, entry) in system::all() {
            if entry.lives {
                children.entry(entry.parent).or_default().push(Self { pid, started: entry.started });
            }
        }
        let mut tree = Vec::new();
        let mut parents = vec![self.pid];
        while let Some(parent) = parents.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                parents.push(child.pid);
                tree.push(child);
            }
        }
        tree
    }
}

struct Entry {
    parent: i32,
    started: String,
    lives: bool,
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    use super::Entry;

    pub(super) fn entry(pid: i32) -> Option<Entry> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Some(Entry {
            lives: !matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            // Field 22, in clock ticks since boot.
            started: (*fields.get(19)?).to_owned(),
        })
    }

    pub(super) fn all() -> Vec<(i32, Entry)> {
        let Ok(folders) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        folders
            .flatten()
            .filter_map(|folder| folder.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, entry(pid)?)))
            .collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::process::Command;

    use super::Entry;

    pub(super) fn entry(pid: i32) -> Option<Entry> {
        list(&["-p", &pid.to_string()]).pop().map(|(_, entry)| entry)
    }

    pub(super) fn all() -> Vec<(i32, Entry)> {
        list(&["-A"])
    }

    fn list(which: &[&str]) -> Vec<(i32, Entry)> {
        let columns = ["-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "lstart="];
        let Ok(output) = Command::new("ps").args(which).args(columns).output() else {
            return Vec::new();
        };
        String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect()
    }

    fn parse(line: &str) -> Option<(i32, Entry)> {
        let mut fields = line.split_whitespace();
        let pid = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let lives = !fields.next()?.starts_with('Z');
        Some((pid, Entry { parent, lives, started: fields.collect::<Vec<_>>().join(" ") }))
    }
}
