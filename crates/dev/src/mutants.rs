//! `cargo dev test --mutants`: cargo-mutants changes the pure rules in one place after the other, and each change must fail
//! a test.
//!
//! Only tests that need no servers run, so a mutant takes the build of one package and some seconds. Mutants that are allowed
//! to survive are listed in `.cargo/mutants.toml`, each with its reason.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::log;
use crate::process::{Farewell, Process};
use crate::progress::{Progress, Step};
use crate::tally::Tally;
use crate::{install, interrupt, servers, workspace};

/// The version of cargo-mutants. It is pinned, because each version makes other mutants.
const VERSION: &str = "27.1.0";

/// The pure rules of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suite {
    package: &'static str,
    files: Vec<&'static str>,
    /// Cargo's flags for the test targets that need no servers.
    targets: &'static [&'static str],
}

fn suites() -> [Suite; 5] {
    [
        Suite {
            package: "events",
            files: vec![
                "crates/events/src/inventory.rs",
                "crates/events/src/item.rs",
                "crates/events/src/order_id.rs",
                "crates/events/src/orders.rs",
                "crates/events/src/parse.rs",
                "crates/events/src/price.rs",
                "crates/events/src/queues.rs",
            ],
            targets: &["--test=contract"],
        },
        Suite {
            package: "graphql",
            files: vec!["crates/graphql/src/cost.rs", "crates/graphql/src/price.rs", "crates/graphql/src/throttle.rs"],
            targets: &["--lib", "--test=it"],
        },
        Suite {
            package: "ms-inventory",
            files: vec!["ms-inventory/src/settlement.rs", "ms-inventory/src/stock.rs"],
            targets: &["--lib"],
        },
        Suite {
            package: "ms-orders",
            files: vec!["ms-orders/src/checkout.rs", "ms-orders/src/status.rs"],
            targets: &["--lib"],
        },
        Suite { package: "ms-users", files: vec!["ms-users/src/throttle.rs"], targets: &["--lib"] },
    ]
}

/// The longest build and the longest run of the tests of one mutant, in seconds. The tests of all take less than 10 s. Those
/// that do not end notice a mutant as well: without its bound on fields, a query goes on for hours.
const BUILD_SECONDS: u32 = 600;
const TEST_SECONDS: u32 = 60;

/// cargo-mutants ends with this code where some tests did not end and no mutant survived.
const TESTS_DID_NOT_END: i32 = 3;

/// Tests the mutants of all rules, or of the files whose path contains `filter`. Fails if a mutant survives.
pub fn run(filter: Option<&str>) -> Result<ExitCode> {
    let suites = selected(filter.unwrap_or_default())?;
    let dir = workspace::root()?.join(".dev/mutants");
    let _lock = servers::work_alone(&dir, "cargo dev test --mutants")?;
    let progress = Progress::new();
    let program = install::cargo_tool("cargo-mutants", VERSION, &dir, &progress)?;
    let target = empty_target()?;
    let mut tally = Tally::default();
    for suite in suites {
        let step = progress.step(&format!("testing mutants of {}", suite.package));
        step.slow(&format!("testing mutants of {}; each takes some seconds", suite.package));
        let outcome = suite.test_mutants(&dir, &program, &target, &step);
        drop(step);
        interrupt::yield_to_it();
        match &outcome {
            Ok(caught) => println!("✓ {}: {caught} mutants, each noticed by a test", suite.package),
            Err(error) => println!("✗ {}: {error:#}", suite.package),
        }
        tally.check(suite.package, outcome.is_ok());
    }
    println!("{tally}");
    Ok(if tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The suites with those of their files whose path contains `filter`.
fn selected(filter: &str) -> Result<Vec<Suite>> {
    let mut suites = Vec::from(suites());
    for suite in &mut suites {
        suite.files.retain(|file| file.contains(filter));
    }
    suites.retain(|suite| !suite.files.is_empty());
    let all = || self::suites().map(|suite| suite.files.join(", ")).join(", ");
    ensure!(!suites.is_empty(), "no module has {filter:?} in its path; there are {}", all());
    Ok(suites)
}

/// A target folder that all suites share. It is emptied first: cargo-mutants copies the repository to a new path each time, so
/// what a run compiles of it is of no use to the next one.
fn empty_target() -> Result<PathBuf> {
    let target = workspace::target()?.join("mutants");
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", target.display()))
        }
        _ => Ok(target),
    }
}

impl Suite {
    /// Tests one mutant after the other. Returns how many there were.
    ///
    /// # Errors
    /// Names the mutants that survive.
    fn test_mutants(&self, dir: &Path, program: &Path, target: &Path, step: &Step) -> Result<usize> {
        let own = dir.join(self.package);
        fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
        let process = Process::spawn_anew(dir, self.package, self.command(&own, program, target)?, Farewell::COMMAND)?;
        let log = process.log_path().to_path_buf();
        let status = process.follow(|line| step.now(line))?;
        let read = |list: &str| fs::read_to_string(own.join("mutants.out").join(list)).unwrap_or_default();
        let survivors = read("missed.txt");
        ensure!(
            survivors.is_empty(),
            "no test fails after\n{survivors}the changes are in {}",
            own.join("mutants.out/diff").display()
        );
        let is_success = status.success() || status.code() == Some(TESTS_DID_NOT_END);
        ensure!(is_success, "cargo-mutants: {status}\n{}", log::tail(&log, 60));
        Ok(read("caught.txt").lines().count() + read("timeout.txt").lines().count())
    }

    /// At the lowest priority: it takes minutes, and somebody may be working.
    fn command(&self, own: &Path, program: &Path, target: &Path) -> Result<Command> {
        let mut command = workspace::command("nice")?;
        command.args(["-n", "19"]).arg(program).args(["mutants", "--package", self.package, "--colors", "never"]);
        // It copies the repository, but not the data of servers that run in it.
        command.args(["--gitignore=true", "--jobs", "1", "--output"]).arg(own);
        command.args([format!("--build-timeout={BUILD_SECONDS}"), format!("--timeout={TEST_SECONDS}")]);
        command.args(self.files.iter().map(|file| format!("--file={file}")));
        command.args(self.targets.iter().map(|target| format!("--cargo-arg={target}")));
        command.env("CARGO_TARGET_DIR", target).env("SQLX_OFFLINE", "true");
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_suite_is_a_source_file_of_its_package() {
        let root = workspace::root().unwrap();
        for Suite { package, files, .. } in suites() {
            for file in files {
                assert!(root.join(file).is_file(), "{file}");
                assert!(file.contains(&format!("{package}/src/")), "{file} is not of {package}");
            }
        }
    }

    #[test]
    fn a_filter_selects_files_and_a_typo_is_an_error() {
        let files = |filter| selected(filter).unwrap().into_iter().flat_map(|suite| suite.files).collect::<Vec<_>>();
        assert_eq!(files("stock"), ["ms-inventory/src/stock.rs"]);
        assert_eq!(files("throttle"), ["crates/graphql/src/throttle.rs", "ms-users/src/throttle.rs"]);
        assert_eq!(selected("").unwrap(), suites());
        let error = selected("stokc").unwrap_err().to_string();
        assert!(error.contains("\"stokc\"") && error.contains("ms-inventory/src/stock.rs"), "{error}");
    }

    #[test]
    fn a_mutant_that_may_survive_has_a_reason() {
        let config = fs::read_to_string(workspace::root().unwrap().join(".cargo/mutants.toml")).unwrap();
        let lines: Vec<&str> = config.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[1].starts_with(['\'', '"'])) {
            assert!(pair[0].starts_with("# "), "no reason above {}", pair[1]);
        }
    }
}
