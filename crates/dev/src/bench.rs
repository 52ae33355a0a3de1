//! `cargo dev bench`: builds the benchmark and what it measures, and becomes it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::install::{self, Need};
use crate::progress::Progress;
use crate::{instance, interrupt, process, servers, workspace};

/// The packages whose programs are measured, and the one that measures.
const PACKAGES: [&str; 3] = ["bench", "ms-inventory", "ms-orders"];

/// Builds optimized programs and hands `arguments` on to the benchmark. It returns only where that cannot be started.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    // The benchmark starts its servers here too, and sweeps it when it starts and when it is interrupted.
    let dir = workspace::root()?.join(".dev/bench");
    let lock = servers::lock(&dir, || eprintln!("another cargo dev bench is at work; waiting for it"))?;
    let swept = dir.clone();
    interrupt::on_signal(move |signal| {
        process::stop_starting();
        process::sweep_below(&swept);
        interrupt::exit_code(signal)
    })?;
    process::sweep_below(&dir);
    let progress = Progress::new();
    install::ensure(&[Need::Postgres, Need::RabbitMq], &progress)?;
    let step = progress.step("building the benchmark");
    step.slow("building optimized programs; the first time takes minutes");
    let mut cargo = workspace::cargo()?;
    cargo.args(["build", "--release", "--bins"]).args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    process::run(&dir, "cargo-build", cargo, |line| step.now(&format!("building: {}", line.trim())))?;
    step.done("benchmark built");
    // It takes the lock itself.
    drop(lock);
    interrupt::yield_to_it();
    let mut bench = Command::new(instance::program("bench", "release")?);
    Err(bench.args(arguments).exec()).context("cannot run the benchmark")
}
