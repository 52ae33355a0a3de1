//! Builds the playground, the page the services embed, where npm is there and its sources are newer than the result.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use crate::install::Need;
use crate::process;
use crate::progress::Progress;
use crate::workspace;

/// Builds it if that is needed and possible. Without npm, the services show a page that says how to build it.
pub fn build(dir: &Path, progress: &Progress) -> Result<()> {
    let folder = workspace::root()?.join("playground");
    if !folder.join("package.json").exists() {
        progress.say("– no playground/ to build");
        return Ok(());
    }
    if newest_source(&folder) <= modified(&folder.join("dist/index.html")) {
        return Ok(());
    }
    if !Need::Npm.is_met() {
        progress.say("– no npm: the playground is not built. With Node.js installed: cargo dev up");
        return Ok(());
    }
    let step = progress.step("building the playground");
    install_packages(dir, &folder, |line| step.now(&format!("playground: {line}")))?;
    process::run(dir, "playground-build", npm(&folder, &["run", "build"]), |line| {
        step.now(&format!("playground: {line}"));
    })?;
    step.done("playground built");
    Ok(())
}

/// `npm ci`, unless the installed packages are those of the lock file.
pub fn install_packages(dir: &Path, folder: &Path, on_line: impl FnMut(&str)) -> Result<()> {
    let wanted = modified(&folder.join("package-lock.json")).max(modified(&folder.join("package.json")));
    if modified(&folder.join("node_modules/.package-lock.json")) >= wanted {
        return Ok(());
    }
    process::run(dir, "npm-ci", npm(folder, &["ci", "--no-audit", "--no-fund"]), on_line)
}

/// npm in `folder`.
pub fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(folder);
    command
}

fn newest_source(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .filter(|entry| !["node_modules", "dist"].iter().any(|skipped| entry.file_name() == *skipped))
        .filter_map(|entry| if entry.path().is_dir() { newest_source(&entry.path()) } else { modified(&entry.path()) })
        .max()
}

/// `None`, which is before any time, for a file that is not there.
fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}
