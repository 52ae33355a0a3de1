//! A snapshot of the advisories of RustSec, for where the newest cannot be fetched: `crates/dev/advisories` holds those of the
//! crates in `Cargo.lock`, and `cargo dev advisories` renews it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustsec::advisory::{Id, Informational};
use rustsec::report::Settings;
use rustsec::{Database, Lockfile, Report};
use serde::Deserialize;

use crate::workspace;

const REPOSITORY: &str = "https://github.com/RustSec/advisory-db";

/// Holds the day of the newest advisory of the whole database.
const DAY: &str = "day";

/// Where the snapshot is.
pub fn snapshot() -> Result<PathBuf> {
    Ok(workspace::root()?.join("crates/dev/advisories"))
}

/// The day of a snapshot, as `2026-08-31`.
pub fn day(snapshot: &Path) -> Result<String> {
    let path = snapshot.join(DAY);
    Ok(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
}

/// What a snapshot knows against the crates of a `Cargo.lock`, each as a line. As in `deny.toml`, an unsound or unmaintained
/// crate counts as a vulnerability does, and what is ignored there is ignored.
pub fn find(snapshot: &Path, lock: &Path, ignore: &[Id]) -> Result<Vec<String>> {
    let database = Database::open(snapshot).with_context(|| format!("no advisories in {}", snapshot.display()))?;
    let lock = Lockfile::load(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let informational_warnings = vec![Informational::Unmaintained, Informational::Unsound];
    let report = Report::generate(
        &database,
        &lock,
        &Settings { ignore: ignore.to_vec(), informational_warnings, ..Settings::default() },
    );
    let vulnerable = report.vulnerabilities.list.into_iter().map(|found| (found.package, found.advisory));
    let warnings = report.warnings.into_values().flatten();
    let warned = warnings.filter_map(|warning| Some((warning.package, warning.advisory?)));
    let mut found: Vec<String> = vulnerable
        .chain(warned)
        .map(|(package, advisory)| format!("{} {}: {} {}", package.name, package.version, advisory.id, advisory.title))
        .collect();
    found.sort();
    Ok(found)
}

/// The advisories that `deny.toml` ignores.
pub fn ignored() -> Result<Vec<Id>> {
    #[derive(Deserialize)]
    struct Rules {
        advisories: Advisories,
    }
    #[derive(Deserialize)]
    struct Advisories {
        ignore: Vec<Ignored>,
    }
    #[derive(Deserialize)]
    struct Ignored {
        id: Id,
    }
    let rules = fs::read_to_string(workspace::root()?.join("deny.toml"))?;
    let rules: Rules = toml::from_str(&rules).context("cannot read deny.toml")?;
    Ok(rules.advisories.ignore.into_iter().map(|ignored| ignored.id).collect())
}

/// Renews the snapshot from a copy of the database, or from the repository where there is none.
pub fn renew(copy: Option<&Path>) -> Result<()> {
    let cloned = workspace::root()?.join(".dev/advisory-db");
    if copy.is_none() {
        if cloned.exists() {
            fs::remove_dir_all(&cloned)?;
        }
        let status =
            Command::new("git").args(["clone", "--quiet", "--depth", "1", REPOSITORY]).arg(&cloned).status()?;
        ensure!(status.success(), "cannot clone {REPOSITORY}");
    }
    let (from, to) = (copy.unwrap_or(&cloned), snapshot()?);
    let database = Database::open(from).with_context(|| format!("no advisories in {}", from.display()))?;
    let newest = database.iter().map(|advisory| advisory.metadata.date.as_str()).max();
    let newest = newest.with_context(|| format!("no advisories in {}", from.display()))?;
    let lock = Lockfile::load(workspace::root()?.join("Cargo.lock"))?;
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    fs::create_dir_all(to.join("crates"))?;
    fs::copy(from.join("LICENSE.txt"), to.join("LICENSE.txt"))?;
    fs::write(to.join(DAY), format!("{newest}\n"))?;
    for package in lock.packages {
        let (from, to) = [from, &to].map(|folder| folder.join("crates").join(package.name.as_str())).into();
        if from.is_dir() && !to.exists() {
            copy_files(&from, &to)?;
        }
    }
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
