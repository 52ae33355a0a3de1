//! The peer in `bench/mercurius`, with its packages from npm.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use dev::install::{self, Need};
use dev::progress::Progress;
use dev::{playground, ports, workspace};

use super::plain::Peer;
use crate::ground::Ground;

const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// Installs it where that has not been done, and starts it.
pub(super) fn start(ground: &Ground, database_url: &str) -> Result<Peer> {
    install::ensure(&[Need::Npm], &Progress::new())?;
    let folder = copy()?;
    playground::install_packages(ground.dir(), &folder, |_| ())?;
    let port = ports::any()?;
    let mut command = Command::new("node");
    command
        .arg(folder.join("server.mjs"))
        .env("NODE_ENV", "production")
        .env("PORT", port.to_string())
        .env("DATABASE_URL", database_url);
    Peer::spawn(ground, "mercurius", port, "graphql", command)
}

/// Its files below `.dev`, where its packages are installed beside them. What is there already keeps its time, by which
/// the installed packages are known to be the right ones.
fn copy() -> Result<PathBuf> {
    let (from, to) = (workspace::root()?.join("bench/mercurius"), workspace::root()?.join(".dev/mercurius"));
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for name in FILES {
        let content = fs::read(from.join(name))?;
        if fs::read(to.join(name)).ok().as_ref() != Some(&content) {
            fs::write(to.join(name), content)?;
        }
    }
    Ok(to)
}
