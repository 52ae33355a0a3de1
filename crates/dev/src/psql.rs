//! SQL through `psql`, which comes with every server: no driver to compile before the first line of progress.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::install;

/// `url` with another database, and with another login where one is given.
pub fn rewrite_url(url: &str, login: Option<(&str, &str)>, database: &str) -> Result<String> {
    let parts = || {
        let (scheme, rest) = url.split_once("://")?;
        let (address, options) =
            rest.split_once('?').map_or((rest, None), |(address, options)| (address, Some(options)));
        let address = address.split_once('/').map_or(address, |(address, _)| address);
        let (old_login, host) = address.rsplit_once('@').map_or((None, address), |(login, host)| (Some(login), host));
        let login = match login {
            Some((user, password)) => format!("{user}:{password}@"),
            None => old_login.map(|login| format!("{login}@")).unwrap_or_default(),
        };
        let options = options.map(|options| format!("?{options}")).unwrap_or_default();
        Some(format!("{scheme}://{login}{host}/{database}{options}"))
    };
    parts().with_context(|| "a PostgreSQL URL starts with postgres://".to_owned())
}

/// A `psql` on `url` that stops at the first error and reads nobody's start-up file.
pub fn psql(url: &str) -> Result<Command> {
    let mut command = Command::new(install::require_postgres()?.join("psql"));
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]);
    Ok(command)
}

/// Runs SQL statements on `url`, each in a transaction of its own, and returns what they print.
pub fn execute(url: &str, statements: &[&str]) -> Result<String> {
    let mut command = psql(url)?;
    command.args(["--tuples-only", "--no-align"]);
    for statement in statements {
        command.args(["--command", statement]);
    }
    run(command)
}

/// Runs a file of SQL on `url`.
pub fn execute_file(url: &str, file: &Path) -> Result<String> {
    let mut command = psql(url)?;
    command.arg("--file").arg(file);
    run(command).with_context(|| format!("in {}", file.display()))
}

fn run(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("cannot run psql")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_server_and_options_when_its_database_and_login_change() {
        let url = "postgres://root:secret@db.example:6000/postgres?sslmode=require";
        assert_eq!(
            rewrite_url(url, Some(("orders", "pass")), "orders").unwrap(),
            "postgres://orders:pass@db.example:6000/orders?sslmode=require"
        );
        assert_eq!(rewrite_url(url, None, "x").unwrap(), "postgres://root:secret@db.example:6000/x?sslmode=require");
        assert_eq!(rewrite_url("postgres://localhost", None, "x").unwrap(), "postgres://localhost/x");
        assert!(rewrite_url("localhost/x", None, "x").is_err());
    }
}
