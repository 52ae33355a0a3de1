//! Where the repository, its private servers and its built programs lie, and how cargo is called on them.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The repository: the nearest folder above the current one that holds this crate.
pub fn root() -> Result<PathBuf> {
    let here = env::current_dir().context("the current folder is gone")?;
    here.ancestors()
        .find(|folder| folder.join("crates/dev/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not inside the repository", here.display()))
}

/// Everything of the servers behind `cargo dev up`: data, logs, records of processes.
pub fn up_dir() -> Result<PathBuf> {
    Ok(root()?.join(".dev/up"))
}

/// The same for the servers behind `cargo dev test`. Nothing in it is worth keeping.
pub fn test_dir() -> Result<PathBuf> {
    Ok(root()?.join(".dev/test"))
}

/// Folder of the programs cargo built with `profile` (`debug` or `release`).
pub fn programs(profile: &str) -> Result<PathBuf> {
    Ok(target()?.join(profile))
}

/// Cargo's target folder, found from the running program, so that any `CARGO_TARGET_DIR` works.
pub fn target() -> Result<PathBuf> {
    let own = own_folder()?;
    let target = own.parent().with_context(|| format!("{} is not in a target folder of cargo", own.display()))?;
    Ok(target.to_path_buf())
}

/// The profile the running program was built with.
pub fn profile() -> Result<String> {
    let own = own_folder()?;
    let name = own.file_name().with_context(|| format!("{} is not in a target folder of cargo", own.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Where the running program lies: of target/debug/dev, or target/debug/deps/test-0123456789abcdef, it is target/debug.
fn own_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("the running program's path is unknown")?;
    let folder = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    Ok(folder.with_context(|| format!("{} lies in no folder", program.display()))?.to_path_buf())
}

/// Cargo on the repository.
pub fn cargo() -> Result<Command> {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that runs cargo on the repository, without what an outer `cargo run` tells about its own package: build scripts
/// that watch those variables would run again at every change between the two.
pub fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root()?);
    for (name, _) in env::vars_os() {
        let about_this_package = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if about_this_package {
            command.env_remove(name);
        }
    }
    Ok(command)
}
