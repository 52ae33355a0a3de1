//! The recorded queries in each service's `.sqlx`, by which a newcomer builds with no database: writing them, and
//! proving them fresh. The macros of sqlx record a query as they compile it against a live database.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::fingerprint::Fingerprint;
use crate::psql;
use crate::services::{SERVICES, Service};
use crate::testing::Database;
use crate::workspace;

/// One freshly migrated database for each service; dropped with this.
#[derive(Debug)]
pub struct Migrated(Vec<(Service, Database)>);

impl Migrated {
    /// Creates them on a server, and applies each service's migrations in the order of their names.
    pub fn create(server_url: &str) -> Result<Self> {
        let root = workspace::root()?;
        let mut databases = Vec::new();
        for service in SERVICES {
            let database = Database::create_on(server_url, service.name)?;
            for migration in files(&root.join("migrations").join(service.name), "sql")? {
                psql::execute_file(database.url(), &migration)?;
            }
            databases.push((service, database));
        }
        Ok(Self(databases))
    }

    /// clippy, made to compile every query anew against these databases and to record it in `recordings`.
    ///
    /// Cargo does not know that a crate depends on a database. It does know the arguments of clippy, so a `--cfg` that
    /// nothing reads, with a value never used before, makes it look at every crate of the workspace again.
    ///
    /// `lints` are arguments of the compiler, as in `-D warnings`.
    pub fn clippy(&self, recordings: &Path, mark: &str, selection: &[&str], lints: &[&str]) -> Result<Command> {
        let mut cargo = workspace::cargo()?;
        cargo.env("SQLX_OFFLINE", "false").env("SQLX_OFFLINE_DIR", recordings);
        for (service, database) in &self.0 {
            cargo.env(service.database_variable(), database.url());
        }
        cargo.arg("clippy").args(selection).args(["--all-targets", "--"]).args(lints);
        cargo.args(["--cfg", &format!("queries_of_{mark}")]);
        Ok(cargo)
    }
}

/// Recordings that stay between runs, so that a run that has nothing to look at again takes no time.
#[derive(Debug)]
pub struct Recordings {
    folder: PathBuf,
    mark: String,
}

impl Recordings {
    /// Those in `folder`, emptied if anything that decides about them has changed since.
    pub fn open(folder: &Path) -> Result<Self> {
        let sources = fingerprint()?;
        let note = folder.with_extension("sources");
        let known = fs::read_to_string(&note).unwrap_or_default();
        let mark = match known.split_once(' ') {
            Some((mark, of)) if of == sources && folder.is_dir() => mark.to_owned(),
            _ => {
                empty(folder)?;
                let mark = new_mark();
                fs::write(&note, format!("{mark} {sources}"))?;
                mark
            }
        };
        Ok(Self { folder: folder.to_path_buf(), mark })
    }

    /// Where sqlx writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// To be handed to [`Migrated::clippy`].
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Where the services' `.sqlx` differ from what was recorded now: one line each.
    pub fn differences(&self) -> Result<Vec<String>> {
        let root = workspace::root()?;
        let mut committed = BTreeMap::new();
        for service in SERVICES {
            committed.extend(contents(&root.join(service.program).join(".sqlx"))?);
        }
        Ok(differences(&contents(&self.folder)?, &committed))
    }
}

fn differences(recorded: &BTreeMap<String, String>, committed: &BTreeMap<String, String>) -> Vec<String> {
    let missing = recorded.iter().filter(|(name, _)| !committed.contains_key(*name));
    let stale = committed.iter().filter(|(name, content)| recorded.get(*name) != Some(content));
    let missing = missing.map(|(name, content)| format!("not recorded: {name} {}", first_words(content)));
    missing.chain(stale.map(|(name, content)| format!("stale: {name} {}", first_words(content)))).collect()
}

/// Compiles each service against `databases` and replaces its `.sqlx`, or leaves it as it is where that fails.
pub fn record(databases: &Migrated, scratch: &Path, mut run: impl FnMut(Command) -> Result<()>) -> Result<()> {
    let root = workspace::root()?;
    for service in SERVICES {
        let recordings = scratch.join(service.name);
        empty(&recordings)?;
        run(databases.clippy(&recordings, &new_mark(), &["--package", service.program], &["--cap-lints", "allow"])?)?;
        let target = root.join(service.program).join(".sqlx");
        empty(&target)?;
        let recorded = contents(&recordings)?;
        for (name, content) in &recorded {
            fs::write(target.join(name), content)?;
        }
        println!("{}: {} queries", target.display(), recorded.len());
    }
    Ok(())
}

/// Of everything from which queries and their types come.
fn fingerprint() -> Result<String> {
    let root = workspace::root()?;
    let mut command = Command::new("git");
    // Content, not times: a fresh clone of the same commit has the same.
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "migrations"]);
    let output = command.args(SERVICES.map(|service| service.program)).current_dir(&root).output()?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let mut fingerprint = Fingerprint::new();
    for path in String::from_utf8(output.stdout)?.split_terminator('\0') {
        // A file deleted but not yet committed has no content.
        fingerprint = fingerprint.with(path.as_bytes()).with(&fs::read(root.join(path)).unwrap_or_default());
    }
    Ok(fingerprint.to_string())
}

fn new_mark() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn contents(folder: &Path) -> Result<BTreeMap<String, String>> {
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read_to_string(&path)?))
    };
    files(folder, "json")?.into_iter().map(named).collect()
}

/// Sorted by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// Of the query in a recording.
fn first_words(recording: &str) -> String {
    let parsed: serde_json::Value = serde_json::from_str(recording).unwrap_or_default();
    let query = parsed["query"].as_str().unwrap_or_default();
    let words = query.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_forgotten_queries_are_told_apart_from_fresh_ones() {
        let recording = |name: &str, query: &str| (name.to_owned(), format!("{{\"query\": \"{query}\"}}"));
        let recorded = [recording("fresh", "select 1"), recording("new", "select 2"), recording("changed", "select 3")];
        let committed =
            [recording("fresh", "select 1"), recording("changed", "select 4"), recording("gone", "select 5")];
        assert_eq!(
            differences(&recorded.into(), &committed.into()),
            ["not recorded: new select 2", "stale: changed select 4", "stale: gone select 5"]
        );
    }
}
