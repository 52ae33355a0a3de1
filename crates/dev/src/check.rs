//! `cargo dev test`: everything that must hold before a change is shared, on servers of its own.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::install::{self, Need};
use crate::process::{self, Farewell, Process};
use crate::progress::Progress;
use crate::queries::{self, Migrated, Recordings};
use crate::servers::{self, Servers};
use crate::tally::Tally;
use crate::testing::{self, Folder};
use crate::{dependencies, interrupt, npm_audit, playground, workspace};

/// How many tests of one program run at the same time.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// What to test.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only the tests whose path contains this.
    pub filter: Option<String>,
    /// Only this package's.
    pub package: Option<String>,
    /// Those that take long as well, which are marked as ignored.
    pub long: bool,
}

impl Selection {
    fn is_everything(&self) -> bool {
        self.filter.is_none() && self.package.is_none()
    }
}

/// Runs all checks and tests, or only the selected tests, and prints how many passed.
pub fn run(selection: &Selection) -> Result<ExitCode> {
    let mut check = Check::begin(&[Need::Postgres, Need::RabbitMq, Need::Chromium, Need::Npm])?;
    if selection.is_everything() {
        check.step("format", Check::format);
        check.step("dependencies", Check::dependencies);
        check.step("advisories", Check::advisories);
        check.step("playground", Check::playground);
        check.step("clippy", Check::clippy);
        check.step("recorded queries", Check::recorded_queries);
        check.step("browser tests' packages", Check::browser_packages);
    }
    let failed = check.tally.failed();
    let tested = check.step_uncounted("tests", |check| check.tests(selection));
    // A test binary that does not compile, or dies, has no line that says so.
    if !tested && check.tally.failed() == failed {
        check.tally.check("cargo test", false);
    }
    Ok(check.end())
}

/// `cargo dev prepare`: records the queries of each service in its `.sqlx`.
pub fn record_queries() -> Result<ExitCode> {
    let mut check = Check::begin(&[Need::Postgres, Need::RabbitMq])?;
    let databases = Migrated::create(&check.servers.database_url)?;
    let scratch = check.dir.join("recordings-by-service");
    let recorded = queries::record(&databases, &scratch, |command| check.command("cargo-clippy", command));
    drop(databases);
    check.stop();
    recorded.map(|()| ExitCode::SUCCESS)
}

struct Check {
    dir: PathBuf,
    servers: Servers,
    progress: Progress,
    tally: Tally,
    /// What nobody should overlook, though it is no failure.
    notices: Vec<String>,
    /// What sqlx recorded while clippy compiled, if it compiled all.
    recordings: Option<Recordings>,
    /// Where the folders of tests lie, so that the servers of a test that crashed are found.
    folders: Folder,
    _lock: fs::File,
}

impl Check {
    fn begin(needs: &[Need]) -> Result<Self> {
        let dir = workspace::root()?.join(".dev/check");
        let lock = servers::lock(&dir, || eprintln!("another cargo dev test is at work; waiting for it"))?;
        process::sweep(&dir);
        let folders = Folder::create("order-inventory-tests")?;
        let (swept, swept_folders) = (dir.clone(), folders.path().to_path_buf());
        interrupt::on_signal(move |signal| {
            process::stop_starting();
            clean(&swept, &swept_folders);
            let _ = fs::remove_dir_all(&swept_folders);
            interrupt::exit_code(signal)
        })?;
        let progress = Progress::new();
        install::ensure(needs, &progress)?;
        let servers = servers::for_tests(&progress)?;
        Ok(Self {
            dir,
            servers,
            progress,
            tally: Tally::default(),
            notices: Vec::new(),
            recordings: None,
            folders,
            _lock: lock,
        })
    }

    /// A headline, the work, and how long it took; counted as one check.
    fn step(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) {
        let passed = self.step_uncounted(name, work);
        self.tally.check(name, passed);
    }

    fn step_uncounted(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> bool {
        println!("\n── {name}");
        let since = Instant::now();
        let result = work(self);
        interrupt::yield_to_it();
        let seconds = since.elapsed().as_secs_f32();
        match &result {
            Ok(()) => println!("✓ {name} ({seconds:.1} s)"),
            Err(error) => println!("✗ {name} ({seconds:.1} s): {error:#}"),
        }
        result.is_ok()
    }

    fn format(&mut self) -> Result<()> {
        let mut cargo = workspace::cargo()?;
        // Names of files are enough: `cargo fmt` shows the rest by doing it.
        cargo.args(["fmt", "--all", "--check", "--", "-l"]);
        self.command("cargo-fmt", cargo)
    }

    fn dependencies(&mut self) -> Result<()> {
        dependencies::check_rules(&self.dir, &self.progress)
    }

    fn advisories(&mut self) -> Result<()> {
        let crates = dependencies::check_advisories(&self.dir, &self.progress)?;
        let packages = npm_audit::check(&self.dir)?;
        for notice in crates.into_iter().chain(packages) {
            println!("NOTICE: {notice}");
            self.notices.push(notice);
        }
        Ok(())
    }

    fn playground(&mut self) -> Result<()> {
        let folder = workspace::root()?.join("playground");
        playground::build(&self.dir, &self.progress)?;
        playground::install_packages(&self.dir, &folder, |_| ())?;
        self.command("playground-check", playground::npm(&folder, &["run", "--silent", "check"]))
    }

    fn browser_packages(&mut self) -> Result<()> {
        playground::install_packages(&self.dir, &workspace::root()?.join("e2e/browser"), |_| ())
    }

    fn clippy(&mut self) -> Result<()> {
        let databases = Migrated::create(&self.servers.database_url)?;
        let recordings = Recordings::open(&self.dir.join("recordings"))?;
        let command =
            databases.clippy(recordings.folder(), recordings.mark(), &["--workspace"], &["-D", "warnings"])?;
        self.command("cargo-clippy", command)?;
        self.recordings = Some(recordings);
        Ok(())
    }

    fn recorded_queries(&mut self) -> Result<()> {
        let recordings = self.recordings.as_ref().context("unknown, because clippy did not come to its end")?;
        let differences = recordings.differences()?;
        ensure!(differences.is_empty(), "{}\nto be recorded anew: cargo dev prepare", differences.join("\n"));
        Ok(())
    }

    fn tests(&mut self, selection: &Selection) -> Result<()> {
        let mut cargo = workspace::cargo()?;
        cargo.env("SQLX_OFFLINE", "true").envs(testing::environment(&self.servers));
        cargo.env(testing::FOLDER_VARIABLE, self.folders.path());
        // Most tests wait for servers most of the time.
        if std::env::var_os(TEST_THREADS).is_none() {
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            cargo.env(TEST_THREADS, (2 * cores).to_string());
        }
        cargo.args(["test", "--no-fail-fast"]);
        match &selection.package {
            Some(package) => cargo.args(["--package", package]),
            None => cargo.arg("--workspace"),
        };
        cargo.args(&selection.filter);
        if selection.long {
            cargo.args(["--", "--include-ignored"]);
        }
        let process = self.spawn("cargo-test", cargo)?;
        let status = process.follow(|line| {
            println!("{line}");
            self.tally.read_line(line);
        })?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Runs a command and passes on what it prints.
    fn command(&mut self, name: &str, command: Command) -> Result<()> {
        let status = self.spawn(name, command)?.follow(|line| println!("{line}"))?;
        ensure!(status.success(), "{name}: {status}");
        Ok(())
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            command.env("CARGO_TERM_COLOR", "always");
        }
        Process::spawn_anew(&self.dir, name, command, Farewell::COMMAND)
    }

    fn stop(&self) {
        clean(&self.dir, self.folders.path());
    }

    fn end(self) -> ExitCode {
        if !self.tally.is_success() {
            match servers::keep_logs(&self.dir.join("logs")) {
                Ok(kept) => println!("\nthe servers' logs are kept: {}", kept.join(", ")),
                Err(error) => eprintln!("{error:#}"),
            }
            for line in servers::quorum_troubles().unwrap_or_default() {
                println!("the broker: {line}");
            }
        }
        self.stop();
        println!();
        for notice in &self.notices {
            println!("NOTICE: {notice}");
        }
        for failure in self.tally.failures() {
            println!("failed: {failure}");
        }
        let code = if self.tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        println!("{}", self.tally);
        code
    }
}

fn clean(dir: &Path, folders: &Path) {
    process::sweep(dir);
    process::sweep_below(folders);
    if let Err(error) = servers::release_tests().context("the test servers' data stays") {
        eprintln!("{error:#}");
    }
}
