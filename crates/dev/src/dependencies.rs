//! What may come in as a dependency, and what is known against those we have: `deny.toml`, checked by cargo-deny.
//!
//! Advisories are kept in a repository on GitHub, which not every machine reaches. Where they cannot be fetched, those
//! fetched earlier count, and where there are none, the snapshot in `crates/dev/advisories`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::advisories;
use crate::install;
use crate::log;
use crate::process::{Farewell, Process};
use crate::progress::Progress;
use crate::workspace;

/// Exactly this one, because each judges a little differently.
const VERSION: &str = "0.20.2";

/// How long the fetching of advisories may take: a clone of a few megabytes, or a look at what is new.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);

/// Checks sources and licences, and that nothing is banned.
pub fn check_rules(dir: &Path, progress: &Progress) -> Result<()> {
    let arguments = ["--locked", "--color", "never", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    let command = cargo_deny(dir, progress, &arguments)?;
    let process = Process::spawn_anew(dir, "cargo-deny-rules", command, Farewell::COMMAND)?;
    let mut in_warning = false;
    let status = process.follow(|line| {
        if is_worth_telling(line, &mut in_warning) {
            println!("{line}");
        }
    })?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Of a warning, such as that of a crate that is there twice, its headline is enough; there are dozens.
fn is_worth_telling(line: &str, in_warning: &mut bool) -> bool {
    let is_headline = line.starts_with(|first: char| first.is_ascii_alphabetic());
    if is_headline {
        *in_warning = line.starts_with("warning[");
    }
    !line.is_empty() && (is_headline || !*in_warning)
}

/// Checks for advisories against what we depend on. Returns what whoever relies on the result has to know: that it was not
/// checked by the newest advisories.
pub fn check_advisories(dir: &Path, progress: &Progress) -> Result<Option<String>> {
    let fetched = fetch_advisories(dir, cargo_deny(dir, progress, &["fetch", "db"])?)?;
    let arguments = ["--offline", "--locked", "--color", "never", "check", "advisories"];
    let command = cargo_deny(dir, progress, &arguments)?;
    let process = Process::spawn_anew(dir, "cargo-deny-advisories", command, Farewell::COMMAND)?;
    let log = process.log_path().to_path_buf();
    let mut verdict = Verdict::None;
    process.follow(|line| verdict = verdict.after(line))?;
    let judged = judge(fetched, verdict);
    match judged {
        Judged::Clean => Ok(None),
        Judged::CleanByEarlier(why) => {
            Ok(Some(format!("advisories are not the newest, because they could not be fetched: {why}")))
        }
        Judged::Unchecked(why) => check_snapshot(&why).map(Some),
        Judged::Found => {
            println!("{}", log::tail(&log, 1_000));
            bail!("there are advisories")
        }
        Judged::Unusable => {
            println!("{}", log::tail(&log, 1_000));
            bail!("advisories were fetched and could not be checked")
        }
    }
}

/// Checks by the snapshot, because the newest could not be fetched for the reason `why`.
fn check_snapshot(why: &str) -> Result<String> {
    let snapshot = advisories::snapshot()?;
    let found = advisories::find(&snapshot, &workspace::root()?.join("Cargo.lock"), &advisories::ignored()?)?;
    for advisory in &found {
        println!("{advisory}");
    }
    ensure!(found.is_empty(), "there are advisories");
    let day = advisories::day(&snapshot)?;
    Ok(format!("advisories are those up to {day}, because the newest could not be fetched: {why}"))
}

/// An error of the fetch is a value: it is no error of the check.
fn fetch_advisories(dir: &Path, mut command: Command) -> Result<Result<(), String>> {
    // Nobody is there to be asked.
    command.env("GIT_TERMINAL_PROMPT", "0");
    let mut process = Process::spawn_anew(dir, "cargo-deny-fetch", command, Farewell::COMMAND)?;
    let log = process.log_path().to_path_buf();
    let Some(status) = process.ended_within(FETCH_PATIENCE) else {
        return Ok(Err(format!("no end after {} s", FETCH_PATIENCE.as_secs())));
    };
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(reason(&log::tail(&log, 20)).unwrap_or_else(|| status.to_string())))
}

/// What git says of it, or else the last line of all.
fn reason(output: &str) -> Option<String> {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.starts_with("fatal: ")).or(lines().next_back()).map(str::to_owned)
}

/// What cargo-deny says of advisories in its last line. Its exit code does not tell a finding from a database that is not
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It did not come that far.
    None,
    Clean,
    Found,
}

impl Verdict {
    fn after(self, line: &str) -> Self {
        match line {
            "advisories ok" => Self::Clean,
            "advisories FAILED" => Self::Found,
            _ => self,
        }
    }
}

/// What is to be made of a verdict.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Clean,
    /// By advisories that were fetched earlier, because the newest could not be, for this reason.
    CleanByEarlier(String),
    /// There are no advisories, because they could not be fetched, for this reason.
    Unchecked(String),
    Found,
    /// They were fetched and could not be read.
    Unusable,
}

fn judge(fetched: Result<(), String>, verdict: Verdict) -> Judged {
    match (verdict, fetched) {
        (Verdict::Found, _) => Judged::Found,
        (Verdict::Clean, Ok(())) => Judged::Clean,
        (Verdict::Clean, Err(why)) => Judged::CleanByEarlier(why),
        (Verdict::None, Err(why)) => Judged::Unchecked(why),
        (Verdict::None, Ok(())) => Judged::Unusable,
    }
}

/// cargo-deny on the workspace.
fn cargo_deny(dir: &Path, progress: &Progress, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(install::cargo_tool("cargo-deny", VERSION, dir, progress)?);
    command.args(arguments).current_dir(workspace::root()?);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(output: &str) -> Verdict {
        output.lines().fold(Verdict::None, Verdict::after)
    }

    #[test]
    fn only_a_finding_is_held_against_a_change_where_advisories_cannot_be_fetched() {
        let found = verdict("error[vulnerability]: it breaks\n\nadvisories FAILED\n");
        let clean = verdict("warning[yanked]: it is gone\n\nadvisories ok\n");
        let none = verdict("2026-11-20 19:21:50 [ERROR] failed to get 'FETCH_HEAD' metadata\n");
        let unreachable = || Err("Could not resolve host".to_owned());
        let why = || "Could not resolve host".to_owned();
        assert_eq!(judge(Ok(()), found), Judged::Found);
        assert_eq!(judge(unreachable(), found), Judged::Found);
        assert_eq!(judge(Ok(()), clean), Judged::Clean);
        assert_eq!(judge(unreachable(), clean), Judged::CleanByEarlier(why()));
        assert_eq!(judge(unreachable(), none), Judged::Unchecked(why()));
        assert_eq!(judge(Ok(()), none), Judged::Unusable, "what was fetched must be usable");
    }

    #[test]
    fn git_says_why_nothing_was_fetched() {
        let output = "[ERROR] failed to clone\nCloning into '/x'...\nfatal: unable to access it\n\nTry again.\n";
        assert_eq!(reason(output).as_deref(), Some("fatal: unable to access it"));
        assert_eq!(reason("[ERROR] no git\n\n").as_deref(), Some("[ERROR] no git"));
        assert_eq!(reason(""), None);
    }

    #[test]
    fn warnings_are_told_in_one_line_and_errors_in_full() {
        let output = "warning[duplicate]: twice\n   ┌─ Cargo.lock:1:1\n\nerror[banned]: openssl\n   ┌─ deny.toml:9:9\n\n\
                      bans FAILED, sources ok";
        let mut in_warning = false;
        let told: Vec<&str> = output.lines().filter(|line| is_worth_telling(line, &mut in_warning)).collect();
        assert_eq!(
            told,
            ["warning[duplicate]: twice", "error[banned]: openssl", "   ┌─ deny.toml:9:9", "bans FAILED, sources ok"]
        );
    }
}
