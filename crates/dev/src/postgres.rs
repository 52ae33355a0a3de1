//! A private PostgreSQL: its own data directory, its own port, on the loopback interface only.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use crate::fingerprint::Fingerprint;
use crate::process::{Farewell, Process};
use crate::tls::TlsFiles;
use crate::{install, ports};

/// The superuser of every private server, and its password.
const SUPERUSER: &str = "postgres";

/// SIGINT is PostgreSQL's fast shutdown: open transactions are rolled back, clients are sent away.
const FAREWELL: Farewell = Farewell::new(Signal::SIGINT, Duration::from_secs(20));

/// Cold start with a crash to recover from, on a slow disk.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What a private PostgreSQL is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Taken where it is free.
    pub port: Option<u16>,
    /// Connections it accepts.
    pub max_connections: u16,
    /// Whether a commit survives a crash of the machine. A crash of the server alone loses nothing either way.
    pub durable: bool,
    /// What it shows to clients that ask for TLS; without it they are told there is none.
    pub tls: Option<TlsFiles>,
}

impl Options {
    /// For `cargo dev up`: the usual port, default durability.
    pub const RUN: Self = Self { port: Some(5432), max_connections: 200, durable: true, tls: None };

    /// For tests: any port, many connections, and no waiting for the disk, since no test pulls the machine's plug.
    pub const TEST: Self = Self { port: None, max_connections: 500, durable: false, tls: None };
}

/// A running server. Dropping it kills it; its data stays.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    options: Options,
    process: Process,
}

impl Postgres {
    /// Starts a server on the data below `dir`, which is created at the first start.
    pub fn start(dir: &Path, options: Options) -> Result<Self> {
        let port = match options.port {
            Some(wanted) => ports::prefer(wanted)?,
            None => ports::any()?,
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let process = launch(dir, port, &options)?;
        Ok(Self { dir: dir.to_path_buf(), port, options, process })
    }

    /// URL of the superuser on the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}:{SUPERUSER}@127.0.0.1:{}/postgres", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Kills the server and all its backends the hard way.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Freezes the server and its backends: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process.signal_tree(Signal::SIGSTOP);
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.process.signal_tree(Signal::SIGCONT);
    }

    /// Starts it again on the same port and data, killing it first where it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        self.process = launch(&self.dir, self.port, &self.options)?;
        Ok(())
    }

    /// Stops it the orderly way.
    pub fn stop(self) -> Result<()> {
        self.process.stop().map(drop)
    }

    /// Leaves it running; [`crate::process::sweep`] on its folder stops it.
    pub fn detach(self) {
        self.process.detach();
    }
}

fn launch(dir: &Path, port: u16, options: &Options) -> Result<Process> {
    let programs = install::require_postgres()?;
    let account = Account::current()?;
    let data = account.home(dir)?;
    if !data.join("PG_VERSION").exists() {
        initialize(&programs, &data, &account)?;
    }
    let mut command = account.command(&programs.join("postgres"));
    command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    let mut set = |name: &str, value: &str| {
        command.args(["-c", &format!("{name}={value}")]);
    };
    set("listen_addresses", "127.0.0.1");
    // A socket's path may have 107 bytes, and nobody promises a short path to the repository.
    set("unix_socket_directories", "");
    set("max_connections", &options.max_connections.to_string());
    set("log_line_prefix", "%m [%p] %d ");
    if let Some(tls) = &options.tls {
        // The server takes no key that others may read, and runs in its data directory.
        account.write_private(&data.join("server.crt"), &fs::read_to_string(&tls.certificate)?)?;
        account.write_private(&data.join("server.key"), &fs::read_to_string(&tls.key)?)?;
        set("ssl", "on");
    }
    if !options.durable {
        set("fsync", "off");
        set("full_page_writes", "off");
        // A client that a test has silenced while it logs in holds up everybody who drops a database, by default for a minute.
        set("authentication_timeout", "20s");
    }
    let mut process = Process::spawn(dir, "postgres", command, FAREWELL)?;
    process.wait_ready(START_PATIENCE, || is_ready(&programs, port))?;
    Ok(process)
}

fn initialize(programs: &Path, data: &Path, account: &Account) -> Result<()> {
    let password_file = account.write_private(&data.with_extension("password"), SUPERUSER)?;
    let output = account
        .command(&programs.join("initdb"))
        .arg("-D")
        .arg(data)
        .args(["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C", "--no-instructions"])
        // The server checks the password against its scram verifier in either method. Over loopback nothing is
        // gained by the client's 4096 rounds of SHA-256, which an unoptimized client pays at every connection.
        .args(["--auth-host", "password", "--auth-local", "reject"])
        .arg("--pwfile")
        .arg(&password_file)
        .output()
        .context("cannot run initdb")?;
    fs::remove_file(&password_file)?;
    ensure!(output.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn is_ready(programs: &Path, port: u16) -> bool {
    Command::new(programs.join("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The account the server runs as: ourselves, or `postgres` where we are root, whom PostgreSQL refuses.
struct Account {
    other: Option<User>,
}

impl Account {
    fn current() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let user = User::from_name(SUPERUSER)?
            .context("PostgreSQL does not run as root, and there is no account `postgres` on this machine")?;
        Ok(Self { other: Some(user) })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.other {
            // `/` because the account need not be allowed into our current folder.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/").env("HOME", &user.dir);
        }
        command
    }

    /// The data directory for `dir`: in it, or, where this account may not pass through its parents (a clone below
    /// /root), under /var/tmp with a link to it in `dir`.
    fn home(&self, dir: &Path) -> Result<PathBuf> {
        let data = dir.join("postgres");
        let Some(user) = &self.other else { return Ok(data) };
        if let Ok(elsewhere) = fs::read_link(&data) {
            return Ok(elsewhere);
        }
        let reachable = self.command(Path::new("test")).arg("-x").arg(dir).status()?.success();
        let place = if reachable {
            data
        } else {
            let place = PathBuf::from(format!(
                "/var/tmp/order-inventory-postgres-{}",
                Fingerprint::new().with(dir.as_os_str().as_encoded_bytes())
            ));
            symlink(&place, &data).with_context(|| format!("cannot link {}", data.display()))?;
            place
        };
        if !place.exists() {
            fs::create_dir(&place).with_context(|| format!("cannot create {}", place.display()))?;
            chown(&place, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(place)
    }

    fn write_private(&self, file: &Path, content: &str) -> Result<PathBuf> {
        fs::write(file, content)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        if let Some(user) = &self.other {
            chown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(file.to_path_buf())
    }
}
