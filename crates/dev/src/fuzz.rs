//! `cargo dev test --fuzz`: libFuzzer on each target of the crate `fuzz`, for a bounded time.
//!
//! cargo-fuzz needs a nightly compiler for its sanitizers only. What leads libFuzzer, the coverage, is a pass of LLVM that
//! the stable compiler has too, so cargo is called here with the same flags.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::log;
use crate::process::{self, Farewell, Process};
use crate::progress::Progress;
use crate::tally::Tally;
use crate::{interrupt, servers, workspace};

/// The targets of the crate `fuzz`, each with the folders of the inputs it begins with. New ones go into the first.
pub const SEEDS: &[(&str, &[&str])] = &[
    ("order-events", EVENTS),
    ("stock-events", EVENTS),
    ("product-events", EVENTS),
    ("inventory-requests", &["crates/fuzz/seeds/requests"]),
    ("orders-requests", &["crates/fuzz/seeds/requests"]),
    ("inventory-documents", &["crates/fuzz/seeds/documents", "playground/operations/inventory"]),
    ("orders-documents", &["crates/fuzz/seeds/documents", "playground/operations/orders"]),
    ("query-strings", &["crates/fuzz/seeds/query-strings"]),
    ("headers", &["crates/fuzz/seeds/headers"]),
    ("order-ids", &["crates/fuzz/seeds/order-ids"]),
    ("traces", &["crates/fuzz/seeds/traces"]),
    ("cursors", &["crates/fuzz/seeds/cursors"]),
    ("ids", &["crates/fuzz/seeds/ids"]),
    ("prices", &["crates/fuzz/seeds/prices"]),
    ("tokens", &["crates/fuzz/seeds/tokens"]),
    ("claims", &["crates/fuzz/seeds/claims"]),
    ("key-sets", &["crates/fuzz/seeds/key-sets"]),
    ("emails", &["crates/fuzz/seeds/emails"]),
];

const EVENTS: &[&str] = &["crates/fuzz/seeds/events", "crates/events/golden"];

/// What rustc needs beyond the profile `fuzz`: the coverage that leads libFuzzer, as cargo-fuzz asks for it, and the name
/// by which the crate `fuzz` and others know that they are being fuzzed.
const RUSTFLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";

/// What one input may take. In millions of runs none took a second, and no target more than 110 MiB.
const INPUT_SECONDS: u32 = 5;
const INPUT_MIB: u32 = 1_024;

/// The largest input. What is larger only repeats itself.
const MAX_INPUT_BYTES: u32 = 16 * 1024;

/// What to fuzz, and for how long.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Only the targets whose name contains this.
    pub filter: Option<String>,
    /// For each target.
    pub seconds: u32,
}

impl Selection {
    fn targets(&self) -> Result<Vec<(&'static str, &'static [&'static str])>> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let targets: Vec<_> = SEEDS.iter().copied().filter(|(name, _)| name.contains(filter)).collect();
        let names = || SEEDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        ensure!(!targets.is_empty(), "no target has {filter:?} in its name; there are {}", names());
        Ok(targets)
    }
}

/// Builds the targets and runs those that are selected, one after the other.
pub fn run(selection: &Selection) -> Result<ExitCode> {
    let dir = workspace::root()?.join(".dev/fuzz");
    let _lock = servers::work_alone(&dir, "cargo dev test --fuzz")?;
    let targets = selection.targets()?;
    let progress = Progress::new();
    let program = build(&dir, &progress)?;
    let mut tally = Tally::default();
    for (name, seeds) in targets {
        let step = progress.step(&format!("fuzzing {name}"));
        step.slow(&format!("fuzzing {name} for {} s", selection.seconds));
        let outcome = fuzz(&dir, &program, name, seeds, selection.seconds);
        drop(step);
        interrupt::yield_to_it();
        match &outcome {
            Ok(stats) => println!("✓ {name}: {stats}"),
            Err(error) => println!("✗ {name}: {error:#}"),
        }
        tally.check(name, outcome.is_ok());
    }
    println!("{tally}");
    Ok(if tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In a target folder of its own, so that the next `cargo build` need not compile all anew without these flags.
fn build(dir: &Path, progress: &Progress) -> Result<PathBuf> {
    let step = progress.step("building the fuzz targets");
    step.slow("building the fuzz targets; the first time takes minutes");
    let host = host()?;
    let target = workspace::target()?.join("fuzzing");
    let mut cargo = workspace::cargo()?;
    // A target that is named, though it is this machine: else build scripts get the flags too, and cannot be linked.
    cargo.args(["build", "--package", "fuzz", "--profile", "fuzz", "--target", &host, "--target-dir"]).arg(&target);
    cargo.env("RUSTFLAGS", RUSTFLAGS);
    process::run(dir, "cargo-build", cargo, |line| step.now(&format!("building: {}", line.trim())))?;
    step.done("fuzz targets built");
    Ok(target.join(host).join("fuzz/fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--print", "host-tuple"]).output().context("cannot run rustc")?;
    ensure!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs libFuzzer. What it finds worth keeping stays in `.dev/fuzz/NAME/corpus`, so that the next run goes on from there.
fn fuzz(dir: &Path, program: &Path, name: &str, seeds: &[&str], seconds: u32) -> Result<Stats> {
    let (root, own) = (workspace::root()?, dir.join(name));
    let (corpus, found) = (own.join("corpus"), own.join("found"));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", name).current_dir(&root).arg(&corpus).args(seeds);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.arg(format!("-dict={}", root.join("crates/fuzz/words.dict").display()));
    command.arg(format!("-max_total_time={seconds}"));
    command.args([format!("-timeout={INPUT_SECONDS}"), format!("-rss_limit_mb={INPUT_MIB}")]);
    command.args([&format!("-max_len={MAX_INPUT_BYTES}"), "-print_final_stats=1"]);
    let process = Process::spawn_anew(dir, name, command, Farewell::COMMAND)?;
    let log = process.log_path().to_path_buf();
    let (mut stats, mut input) = (Stats::default(), None);
    let status = process.follow(|line| {
        stats.read_line(line);
        input = input.take().or_else(|| line.split_once("Test unit written to ").map(|(_, path)| path.to_owned()));
    })?;
    if let Some(input) = input {
        bail!(
            "{}\nto reproduce: cargo run --package fuzz -- {name} {input}\nwhen that holds, keep it in {}",
            log::tail(&log, 60),
            seeds.first().unwrap_or(&"its seeds")
        );
    }
    ensure!(status.success(), "{status}\n{}", log::tail(&log, 60));
    ensure!(stats.coverage > 0, "libFuzzer sees no coverage and gropes in the dark: {}", log.display());
    Ok(stats)
}

/// What libFuzzer says of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stats {
    runs: u64,
    runs_per_second: u64,
    /// Edges of the code that were reached.
    coverage: u64,
    /// Inputs that are worth keeping, because each reaches something.
    corpus: u64,
}

impl Stats {
    /// Takes in a line such as `#8192 pulse  cov: 412 ft: 901 corp: 57/2Kb …` or `stat::average_exec_per_sec: 51200`.
    fn read_line(&mut self, line: &str) {
        let mut words = line.split([' ', '\t', '/']).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            let field = match word {
                "cov:" => &mut self.coverage,
                "corp:" => &mut self.corpus,
                "stat::number_of_executed_units:" => &mut self.runs,
                "stat::average_exec_per_sec:" => &mut self.runs_per_second,
                _ => continue,
            };
            if let Some(number) = words.next().and_then(|word| word.parse().ok()) {
                *field = number;
            }
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, runs_per_second, coverage, corpus } = self;
        write!(f, "{runs} runs, {runs_per_second} a second; {coverage} edges reached by {corpus} inputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_each_kind_counts() {
        let mut stats = Stats::default();
        for line in [
            "INFO: Loaded 1 modules   (402113 inline 8-bit counters): 402113 [0x55, 0x56), ",
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 41Mb",
            "#9000\tNEW    cov: 412 ft: 901 corp: 57/2Kb lim: 4096 exec/s: 4500 rss: 60Mb L: 9/40 MS: 1 CopyPart-",
            "stat::number_of_executed_units: 9001",
            "stat::average_exec_per_sec:     4500",
        ] {
            stats.read_line(line);
        }
        assert_eq!(stats, Stats { runs: 9001, runs_per_second: 4500, coverage: 412, corpus: 57 });
    }
}
