//! A database and a vhost for each test, on the servers `cargo dev test` or `cargo dev servers` started.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::logins::Logins;
use crate::management::Management;
use crate::psql;
use crate::rabbitmq::PASSWORD;
use crate::servers::Servers;

/// Superuser URL of the test server.
pub const DATABASE_VARIABLE: &str = "TEST_DATABASE_URL";
/// AMQP URL of the test broker.
pub const AMQP_VARIABLE: &str = "TEST_AMQP_URL";
/// Base URL of the test broker's management API.
pub const RABBITMQ_UI_VARIABLE: &str = "TEST_RABBITMQ_UI_URL";

/// Where [`Folder`]s are made; the system's place for temporary files if it is not set.
pub const FOLDER_VARIABLE: &str = "TEST_FOLDER";

/// The variables by which tests find `servers`.
pub fn environment(servers: &Servers) -> Vec<(&'static str, String)> {
    let mut environment =
        vec![(DATABASE_VARIABLE, servers.database_url.clone()), (AMQP_VARIABLE, servers.amqp_url.clone())];
    environment.extend(servers.rabbitmq_ui.clone().map(|ui| (RABBITMQ_UI_VARIABLE, ui)));
    environment
}

/// An empty database of its own. Dropping it drops the database, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    server_url: String,
    name: String,
    url: String,
}

impl Database {
    /// Creates a database whose name starts with `purpose`: lower-case letters and underscores.
    pub fn create(purpose: &str) -> Result<Self> {
        Self::create_on(&variable(DATABASE_VARIABLE)?, purpose)
    }

    /// [`Self::create`] on the server of a given superuser's URL.
    pub fn create_on(server_url: &str, purpose: &str) -> Result<Self> {
        let name = unique(purpose);
        let url = psql::rewrite_url(server_url, None, &name)?;
        psql::execute(server_url, &[&format!("create database {name}")])?;
        Ok(Self { server_url: server_url.to_owned(), name, url })
    }

    /// The superuser's URL of this database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes every new connection to this database read-only, as those to a standby are, or writable again. Established
    /// connections stay as they are.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let setting = if is_read_only { "set default_transaction_read_only = on" } else { "reset all" };
        psql::execute(&self.server_url, &[&format!("alter database {} {setting}", self.name)]).map(drop)
    }

    /// Ends every connection to this database from the server's side.
    pub fn close_connections(&self) -> Result<()> {
        let statement =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'", self.name);
        psql::execute(&self.server_url, &[&statement]).map(drop)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        if let Err(error) = psql::execute(&self.server_url, &[&statement]) {
            eprintln!("test database {} stays: {error:#}", self.name);
        }
    }
}

/// A vhost of its own, with users of its own. Dropping it deletes all of them and closes their connections.
#[derive(Debug)]
pub struct Vhost {
    management: Management,
    name: String,
    host: String,
    amqp_url: String,
    /// The logins of services, where it has some.
    logins: Option<Logins>,
}

impl Vhost {
    /// Creates an empty vhost, and a user who may do everything in it.
    pub fn create() -> Result<Self> {
        Self::create_on(&variable(AMQP_VARIABLE)?, &variable(RABBITMQ_UI_VARIABLE)?)
    }

    /// [`Self::create`] on the broker of a given administrator's URL, and of the base URL of its management API.
    pub fn create_on(amqp_url: &str, ui_url: &str) -> Result<Self> {
        let address = AmqpAddress::parse(amqp_url).context("this is no AMQP URL")?;
        let management = Management::new(ui_url, address.user, address.password);
        let name = unique("test");
        management.create_vhost(&name)?;
        management.create_user(&name, PASSWORD, &name)?;
        let amqp_url = format!("amqp://{name}:{PASSWORD}@{}/{name}", address.host);
        Ok(Self { management, name, host: address.host.to_owned(), amqp_url, logins: None })
    }

    /// [`Self::create`], and a user for each service who may do there what it may do on a broker that was set up for it.
    pub fn create_for_services() -> Result<Self> {
        let mut vhost = Self::create()?;
        let logins = vhost.logins.insert(Logins::read()?.in_vhost(&vhost.name)?);
        vhost.management.import(logins)?;
        Ok(vhost)
    }

    /// The user of a service.
    pub fn user_of(&self, program: &str) -> String {
        format!("{}.{program}", self.name)
    }

    /// AMQP URL of this vhost, as the user of a service.
    pub fn amqp_url_of(&self, program: &str) -> Result<String> {
        let Self { name, host, .. } = self;
        let user = self.user_of(program);
        let password = self.logins.as_ref().and_then(|logins| logins.password(&user));
        let password = password.with_context(|| format!("{name} has no user for {program}"))?;
        Ok(format!("amqp://{user}:{password}@{host}/{name}"))
    }

    /// AMQP URL of this vhost.
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// Its name on the broker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The management API of the broker.
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// Closes every connection to this vhost from the broker's side.
    pub fn close_connections(&self) -> Result<()> {
        self.management.close_connections(&self.name, "closed by a test")
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let users = self.logins.iter().flat_map(Logins::users).map(|(user, _)| user).chain([self.name.as_str()]);
        let deleted = users.map(|user| self.management.delete_user(user)).collect::<Result<Vec<()>>>();
        if let Err(error) = deleted.and_then(|_| self.management.delete_vhost(&self.name)) {
            eprintln!("test vhost {} stays: {error:#}", self.name);
        }
    }
}

/// An empty folder of its own that every account may pass through; deleted when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates the folder.
    pub fn create(purpose: &str) -> Result<Self> {
        let parent = env::var_os(FOLDER_VARIABLE).map_or_else(env::temp_dir, PathBuf::from);
        let path = parent.join(unique(purpose));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("test folder {} stays: {error}", self.0.display());
        }
    }
}

struct AmqpAddress<'a> {
    user: &'a str,
    password: &'a str,
    host: &'a str,
}

impl<'a> AmqpAddress<'a> {
    /// `amqp://user:password@host:port/vhost`, as `cargo dev` writes it.
    fn parse(url: &'a str) -> Option<Self> {
        let (login, address) = url.strip_prefix("amqp://")?.rsplit_once('@')?;
        let (user, password) = login.split_once(':')?;
        let host = address.split_once('/').map_or(address, |(host, _)| host);
        Some(Self { user, password, host })
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| {
        format!("{name} is not set: run `cargo dev test`, or `eval \"$(cargo dev servers)\"` before `cargo test`")
    })
}

/// Unlike any other name of this process, of one that runs beside it, or of one that ran before.
fn unique(purpose: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{purpose}_{millis:x}_{:x}_{count:x}", std::process::id())
}
