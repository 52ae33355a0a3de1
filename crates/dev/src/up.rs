//! `cargo dev up` and `down`: the servers, the services and what they need, started in order and stopped in reverse.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::instance::{self, Instance};
use crate::log::{self, LogReader};
use crate::logins::Logins;
use crate::process;
use crate::progress::Progress;
use crate::servers::{self, Purpose, Servers};

use crate::services::{self, Addresses, SERVICES, Service};
use crate::status::{self, Status};
use crate::{interrupt, playground, psql, workspace};

/// Migrations run before a service is ready.
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// Longer than all farewells together.
const DOWN_PATIENCE: Duration = Duration::from_secs(90);

/// How to bring everything up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Run optimized services.
    pub release: bool,
}

impl Options {
    fn profile(self) -> &'static str {
        if self.release { "release" } else { "debug" }
    }
}

/// Starts everything, waits for Ctrl-C or SIGTERM, and stops everything.
pub fn foreground(options: Options) -> Result<ExitCode> {
    let dir = workspace::up_dir()?;
    if let Some(code) = already_up(&dir)? {
        return Ok(code);
    }
    supervise(&dir, options, |status| {
        println!("\n{status}\n\nCtrl-C stops everything.");
    })
}

/// Leaves a supervisor in the background and returns when everything is ready.
pub fn background(options: Options) -> Result<ExitCode> {
    let dir = workspace::up_dir()?;
    if let Some(code) = already_up(&dir)? {
        return Ok(code);
    }
    fs::create_dir_all(&dir)?;
    let log_path = dir.join("supervisor.log");
    let log = File::create(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["up", "--supervise"]).args(options.release.then_some("--release"));
    let mut child = command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    interrupt::on_signal(move |signal| {
        let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
        let _ = nix::sys::wait::waitpid(pid, None);
        interrupt::exit_code(signal)
    })?;
    let progress = Progress::new();
    let waiting = progress.step("starting");
    let mut log = LogReader::open(&log_path)?;
    loop {
        let ended = child.try_wait()?;
        let ready = Status::of(&dir);
        log.read_lines(&mut |line| progress.say(line))?;
        if ended.is_some() {
            // The supervisor has said why, and so have we by repeating it.
            return Ok(ExitCode::FAILURE);
        }
        if let Some(status) = ready {
            drop(waiting);
            println!("\n{status}\n");
            println!("It runs in the background; cargo dev down stops it.");
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What [`background`] leaves behind: [`foreground`] in a session of its own.
pub fn supervise_detached(options: Options) -> Result<ExitCode> {
    nix::unistd::setsid().context("cannot leave the terminal's session")?;
    // Whoever waits for it in the foreground prints the table.
    supervise(&workspace::up_dir()?, options, |_| ())
}

/// Stops everything, or what a crash left of it. The data stays.
pub fn down() -> Result<()> {
    let dir = workspace::up_dir()?;
    if let Some(supervisor) = status::supervisor(&dir) {
        supervisor.signal(Signal::SIGTERM);
        let deadline = Instant::now() + DOWN_PATIENCE;
        while supervisor.lives() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        supervisor.signal(Signal::SIGKILL);
    }
    clean(&dir);
    Ok(())
}

/// [`down`], and all data is deleted.
pub fn reset() -> Result<()> {
    down()?;
    servers::delete(&workspace::up_dir()?)
}

fn already_up(dir: &Path) -> Result<Option<ExitCode>> {
    let deadline = Instant::now() + READY_PATIENCE;
    let mut told = false;
    while let Some(supervisor) = status::supervisor(dir) {
        if let Some(status) = Status::of(dir) {
            println!("Already running:\n{status}");
            return Ok(Some(ExitCode::SUCCESS));
        }
        if !told {
            eprintln!("process {} is already bringing it up; waiting for it", supervisor.pid);
            told = true;
        }
        if Instant::now() > deadline {
            bail!("process {} is still not ready. cargo dev down stops it", supervisor.pid);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

fn supervise(dir: &Path, options: Options, announce: impl FnOnce(&Status)) -> Result<ExitCode> {
    let _lock = servers::lock(dir, || eprintln!("another cargo dev up is at work; waiting for it"))?;
    status::become_supervisor(dir)?;
    let stopped_dir = dir.to_path_buf();
    interrupt::on_signal(move |signal| {
        let was_ready = Status::of(&stopped_dir).is_some();
        eprintln!("\nstopping");
        clean_for_good(&stopped_dir);
        if was_ready { 0 } else { interrupt::exit_code(signal) }
    })?;
    let progress = Progress::new();
    let status = match start(dir, options, &progress) {
        Ok(status) => status,
        Err(error) => {
            interrupt::yield_to_it();
            clean_for_good(dir);
            return Err(error);
        }
    };
    status.write(dir)?;
    announce(&status);
    watch(dir, &progress)
}

fn start(dir: &Path, options: Options, progress: &Progress) -> Result<Status> {
    let (servers, built) = thread::scope(|scope| {
        let servers = scope.spawn(|| Servers::start(dir, Purpose::Run, progress));
        let built = playground::build(dir, progress).and_then(|()| build(dir, options, progress));
        (servers.join(), built)
    });
    let servers = servers.map_err(|_| anyhow!("the thread that starts the servers panicked"))??;
    built?;
    let logins = Logins::read()?;
    prepare(&servers, &logins, progress)?;

    let addresses = Addresses::choose()?;
    let environment = addresses.environment(&servers)?;
    services::write_environment(&environment)?;
    // First, so that ms-orders knows the products from its start.
    seed(dir, options, &environment, progress)?;
    start_services(dir, options, &addresses, |service| service.own(&environment, &servers, &logins), progress)?;
    Status::new(&servers, &addresses)
}

/// Sets up who may do what: each service on its own database, and at the broker on its own exchange and queues. A broker
/// of somebody else stays as it is, and all use the login they were given.
fn prepare(servers: &Servers, logins: &Logins, progress: &Progress) -> Result<()> {
    let step = progress.step("preparing the databases and the broker");
    psql::execute_file(&servers.database_url, &workspace::root()?.join("deploy/postgres-init.sql"))?;
    if let Some(management) = servers.private_broker() {
        management.import(logins)?;
    }
    step.done("databases and broker ready");
    Ok(())
}

/// All programs but this one, which is running and already built.
fn build(dir: &Path, options: Options, progress: &Progress) -> Result<()> {
    let step = progress.step("building");
    step.slow("building; the first time takes minutes");
    let mut cargo = workspace::cargo()?;
    cargo.args(["build", "--workspace", "--exclude", "dev", "--bins"]).args(options.release.then_some("--release"));
    process::run(dir, "cargo-build", cargo, |line| {
        step.now(&format!("building: {}", line.trim()));
    })?;
    step.done("services built");
    Ok(())
}

fn start_services(
    dir: &Path,
    options: Options,
    addresses: &Addresses,
    environment: impl Fn(Service) -> Vec<(String, String)>,
    progress: &Progress,
) -> Result<()> {
    let mut started = Vec::new();
    for (service, url) in addresses.urls() {
        let step = progress.step(&format!("starting {}", service.program));
        let program = instance::program(service.program, options.profile())?;
        let instance = Instance::spawn(dir, service.program, &program, &environment(service), &url)?;
        started.push((step, service.program, instance));
    }
    for (step, program, mut instance) in started {
        instance.wait_up(READY_PATIENCE)?;
        step.done(&format!("{program} on {}", instance.url()));
        instance.detach();
    }
    Ok(())
}

fn seed(dir: &Path, options: Options, environment: &[(String, String)], progress: &Progress) -> Result<()> {
    let step = progress.step("filling in sample products");
    let mut command = Command::new(instance::program("seed-data", options.profile())?);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    process::run(dir, "seed-data", command, |_| ())?;
    step.done("sample products there");
    Ok(())
}

/// Tells of what ends by itself. Only a signal ends this.
fn watch(dir: &Path, progress: &Progress) -> Result<ExitCode> {
    let mut running: Vec<&str> = ["postgres", "rabbit", "epmd"]
        .into_iter()
        .chain(SERVICES.iter().map(|service| service.program))
        .filter(|name| process::runs(dir, name))
        .collect();
    loop {
        thread::sleep(Duration::from_millis(500));
        running.retain(|name| {
            let runs = process::runs(dir, name);
            if !runs {
                interrupt::yield_to_it();
                let log = dir.join("logs").join(format!("{name}.log"));
                progress.say(&format!("✗ {name} has ended! The end of {}:\n{}", log.display(), log::tail(&log, 30)));
            }
            runs
        });
    }
}

fn clean(dir: &Path) {
    Status::forget(dir);
    services::forget_environment();
    servers::stop(dir);
}

fn clean_for_good(dir: &Path) {
    process::stop_starting();
    clean(dir);
}
