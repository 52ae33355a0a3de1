//! Finds the servers and tools on this machine, and installs the missing ones where that needs no questions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;
use crate::{process, workspace};

/// The oldest PostgreSQL the schema works on.
pub const OLDEST_POSTGRES: u32 = 15;

/// Something this machine must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `initdb`, `postgres` and `psql`.
    Postgres,
    /// The scripts of RabbitMQ, and Erlang's `epmd`.
    RabbitMq,
    /// A browser for the tests of the playground.
    Chromium,
    /// Builds the playground.
    Npm,
}

impl Need {
    /// Whether it is there.
    pub fn is_met(self) -> bool {
        match self {
            Self::Postgres => postgres_programs().is_some(),
            Self::RabbitMq => rabbitmq_scripts().is_some() && on_path("epmd").is_some(),
            Self::Chromium => {
                ["chromium", "chromium-browser", "google-chrome"].iter().any(|name| on_path(name).is_some())
            }
            Self::Npm => on_path("npm").is_some() && on_path("node").is_some(),
        }
    }

    fn apt_packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgresql"],
            Self::RabbitMq => &["rabbitmq-server"],
            Self::Chromium => &["chromium"],
            Self::Npm => &["nodejs", "npm"],
        }
    }

    fn brew_package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql@17",
            Self::RabbitMq => "rabbitmq",
            Self::Chromium => "chromium",
            Self::Npm => "node",
        }
    }
}

/// Installs what is missing of `needs`, with apt-get as root or through a sudo that asks for no password. Where that
/// cannot be done, the error names the command to type.
pub fn ensure(needs: &[Need], progress: &Progress) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.apt_packages()).copied().collect();
    let names = packages.join(" ");
    if on_path("apt-get").is_none() {
        let brew: Vec<&str> = missing.iter().map(|need| need.brew_package()).collect();
        bail!("missing: {names}. Please install, for example with: brew install {}", brew.join(" "));
    }
    let Some(mut shell) = root_shell() else {
        bail!("missing: {names}. Please type: sudo apt-get update && sudo apt-get install -y {names}");
    };
    let step = progress.step(&format!("installing {names}"));
    let output = shell.arg(APT_SCRIPT).arg("install").args(&packages).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get could not install {names}:\n{text}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    if let Some(need) = missing.iter().find(|need| !need.is_met()) {
        bail!("{need:?} is still missing (or too old) after apt-get install {names}");
    }
    step.done(&format!("installed {names}"));
    Ok(())
}

/// Debian's packages start a server of their own when they are installed, and at every boot. Ours are private, so the
/// script forbids the first by a `policy-rc.d` and a cluster configuration that live as long as it does, and disables
/// the second.
const APT_SCRIPT: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
made=
clean() { rm -f "$cluster"; [ -z "$made" ] || rm -f "$policy"; }
trap clean EXIT
if [ ! -e "$policy" ]; then
    made=yes
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
mkdir -p "$(dirname "$cluster")"
echo 'create_main_cluster = false' > "$cluster"
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"
for unit in postgresql rabbitmq-server epmd.socket; do
    systemctl disable --quiet "$unit" 2>/dev/null || true
done
"#;

fn root_shell() -> Option<Command> {
    if nix::unistd::geteuid().is_root() {
        let mut shell = Command::new("sh");
        shell.arg("-c");
        return Some(shell);
    }
    let asks_nothing = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status();
    asks_nothing.is_ok_and(|status| status.success()).then(|| {
        let mut shell = Command::new("sudo");
        shell.args(["-n", "sh", "-c"]);
        shell
    })
}

/// The program of a cargo subcommand, installed below `.dev` where exactly this version is not on the `PATH`. `dir` keeps the
/// log of the installation.
pub fn cargo_tool(name: &str, version: &str, dir: &Path, progress: &Progress) -> Result<PathBuf> {
    let own = workspace::root()?.join(".dev/tools").join(format!("{name}-{version}"));
    let installed = own.join("bin").join(name);
    if let Some(program) = on_path(name).filter(|program| is_version(program, name, version)) {
        return Ok(program);
    }
    if !installed.is_file() {
        let step = progress.step(&format!("installing {name}"));
        step.slow(&format!("installing {name}; this takes a minute"));
        let mut cargo = workspace::cargo()?;
        cargo.args(["install", name, "--version", &format!("={version}"), "--locked", "--root"]).arg(&own);
        // A release of cargo-deny takes 2.7 times as long to build, to save 2 s a run; debug information makes it 1.2 times.
        cargo.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
        process::run(dir, "cargo-install", cargo, |line| step.now(&format!("{name}: {}", line.trim())))?;
        step.done(&format!("{name} installed"));
    }
    Ok(installed)
}

/// Asks as cargo does, which hands on the subcommand: cargo-mutants knows no version without it.
fn is_version(program: &Path, name: &str, version: &str) -> bool {
    let output = Command::new(program).args([name.trim_start_matches("cargo-"), "--version"]).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == format!("{name} {version}").as_bytes())
}

/// The folder of the newest PostgreSQL's programs: Debian keeps the server's off the path.
pub fn postgres_programs() -> Option<PathBuf> {
    let installed = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .flat_map(|parent| subfolders(Path::new(parent)))
        .map(|folder| folder.join("bin"));
    path_folders()
        .into_iter()
        .chain(installed)
        .filter(|folder| ["initdb", "postgres", "psql"].iter().all(|program| folder.join(program).is_file()))
        .filter_map(|folder| Some((postgres_version(&folder)?, folder)))
        .filter(|(version, _)| *version >= OLDEST_POSTGRES)
        .max_by_key(|(version, _)| *version)
        .map(|(_, folder)| folder)
}

/// The major version of the PostgreSQL in a folder of programs.
pub fn postgres_version(programs: &Path) -> Option<u32> {
    let output = Command::new(programs.join("postgres")).arg("--version").output().ok()?;
    // postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().nth(2)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The folder of RabbitMQ's own scripts. They come with `rabbitmq-env`; Debian's wrappers in /usr/sbin, which insist
/// on the system's node and user, do not.
pub fn rabbitmq_scripts() -> Option<PathBuf> {
    let unpacked = ["/usr/lib/rabbitmq/lib", "/opt", "/usr/local/lib"]
        .iter()
        .flat_map(|parent| subfolders(Path::new(parent)))
        .map(|folder| folder.join("sbin"));
    ["/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"]
        .iter()
        .map(PathBuf::from)
        .chain(path_folders())
        .chain(unpacked)
        .find(|folder| {
            ["rabbitmq-env", "rabbitmq-server", "rabbitmqctl"].iter().all(|name| folder.join(name).is_file())
        })
}

/// A program on the `PATH`, or in the folders of the system's administration tools, which are on root's only.
pub fn on_path(program: &str) -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// [`postgres_programs`], or an error that says what to do.
pub fn require_postgres() -> Result<PathBuf> {
    postgres_programs().with_context(|| {
        format!(
            "no PostgreSQL {OLDEST_POSTGRES} or newer on this machine; `cargo dev up` and `cargo dev test` install it"
        )
    })
}

/// [`rabbitmq_scripts`], or an error that says what to do.
pub fn require_rabbitmq() -> Result<PathBuf> {
    rabbitmq_scripts().context("no RabbitMQ on this machine; `cargo dev up` and `cargo dev test` install it")
}

fn path_folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from)).collect()
}

fn subfolders(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
