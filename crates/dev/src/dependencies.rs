//! What may come in as a dependency, and what is known against those we have: `deny.toml`, checked by cargo-deny.
//!
//! Advisories are kept in a repository on GitHub, which not every machine reaches. Where they cannot be fetched, those
//! fetched earlier count, and where there are none, that is said and not held against the change.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::install;
use crate::log;
use crate::process::{self, Farewell, Process};
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

/// Checks for advisories against what we depend on. Returns what whoever relies on the result has to know: that nothing
/// was checked, or not by the newest advisories.
pub fn check_advisories(dir: &Path, progress: &Progress) -> Result<Option<String>> {
    let fetched = fetch_advisories(dir, cargo_deny(dir, progress, &["fetch", "db"])?)?;
    let arguments = ["--offline", "--locked", "--color", "never", "check", "advisories"];
    let command = cargo_deny(dir, progress, &arguments)?;
    let process = Process::spawn_anew(dir, "cargo-deny-advisories", command, Farewell::COMMAND)?;
    let log = process.log_path().to_path_buf();
    let mut verdict = Verdict::None;
    process.follow(|line| verdict = verdict.after(line))?;
    let judged = judge(fetched, verdict);
    if judged.is_err() {
        println!("{}", log::tail(&log, 1_000));
    }
    judged
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

fn judge(fetched: Result<(), String>, verdict: Verdict) -> Result<Option<String>> {
    match (verdict, fetched) {
        (Verdict::Found, _) => bail!("there are advisories"),
        (Verdict::Clean, Ok(())) => Ok(None),
        (Verdict::Clean, Err(why)) => {
            Ok(Some(format!("advisories are not the newest, because they could not be fetched: {why}")))
        }
        (Verdict::None, Err(why)) => {
            Ok(Some(format!("advisories were NOT CHECKED, because they could not be fetched: {why}")))
        }
        (Verdict::None, Ok(())) => bail!("advisories were fetched and could not be checked"),
    }
}

/// cargo-deny on the workspace, installed below `.dev` where this version is not on the `PATH`.
fn cargo_deny(dir: &Path, progress: &Progress, arguments: &[&str]) -> Result<Command> {
    let own = workspace::root()?.join(".dev/tools").join(format!("cargo-deny-{VERSION}"));
    let installed = own.join("bin/cargo-deny");
    let program = match install::on_path("cargo-deny").filter(|program| is_wanted(program)) {
        Some(program) => program,
        None if installed.is_file() => installed,
        None => {
            install_below(&own, dir, progress)?;
            installed
        }
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root()?);
    Ok(command)
}

fn is_wanted(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == format!("cargo-deny {VERSION}").as_bytes())
}

fn install_below(root: &Path, dir: &Path, progress: &Progress) -> Result<()> {
    let step = progress.step("installing cargo-deny");
    step.slow("installing cargo-deny; this takes a minute");
    let mut cargo = workspace::cargo()?;
    cargo.args(["install", "cargo-deny", "--version", &format!("={VERSION}"), "--locked", "--root"]).arg(root);
    // Its release profile takes 2 min 37 s to save 2 s a run.
    cargo.arg("--debug");
    process::run(dir, "cargo-install", cargo, |line| step.now(&format!("cargo-deny: {}", line.trim())))?;
    step.done("cargo-deny installed");
    Ok(())
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
        assert!(judge(Ok(()), found).is_err());
        assert!(judge(unreachable(), found).is_err());
        assert_eq!(judge(Ok(()), clean).unwrap(), None);
        assert!(judge(unreachable(), clean).unwrap().unwrap().contains("not the newest"));
        assert!(judge(unreachable(), none).unwrap().unwrap().contains("NOT CHECKED"));
        assert!(judge(Ok(()), none).is_err(), "what was fetched must be usable");
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
