//! Secrets reach the services by their environment or by files, and never a log.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use dev::testing::{DATABASE_VARIABLE, Database, Folder, Vhost};
use dev::{instance, psql};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::health::{confirmed, placed, product};
use crate::service::{PROFILE, Service, becomes, eventually};
use crate::shop::{ServerUrls, printed, services};

/// As the servers know them, and as URLs tell them.
const DATABASE_PASSWORD: [&str; 2] = ["Quartz@Vellum7", "Quartz%40Vellum7"];
const BROKER_PASSWORD: [&str; 2] = ["Saffron@Kestrel9", "Saffron%40Kestrel9"];

/// A role with [`DATABASE_PASSWORD`], dropped after what it owns.
struct Role {
    server_url: String,
    name: String,
}

impl Role {
    fn create(name: String) -> Self {
        let role = Self { server_url: env::var(DATABASE_VARIABLE).unwrap(), name };
        role.execute(&format!("create role {} login password '{}'", role.name, DATABASE_PASSWORD[0]));
        role
    }

    fn execute(&self, statement: &str) {
        psql::execute(&self.server_url, &[statement]).unwrap();
    }

    fn set_password(&self, password: &str) {
        self.execute(&format!("alter role {} password '{password}'", self.name));
    }

    /// The URL of a database by which this role reaches it.
    fn own(&self, database: &Database) -> String {
        self.execute(&format!("alter database {} owner to {}", database.name(), self.name));
        psql::rewrite_url(&self.server_url, Some((&self.name, DATABASE_PASSWORD[1])), database.name()).unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Err(error) = psql::execute(&self.server_url, &[&format!("drop role {}", self.name)]) {
            eprintln!("test role {} stays: {error:#}", self.name);
        }
    }
}

/// Servers that know no secret but ours.
struct Servers {
    inventory: Database,
    orders: Database,
    // After the databases it owns.
    role: Role,
    vhost: Vhost,
    folder: Folder,
}

impl Servers {
    fn create() -> Self {
        let (inventory, orders) = (Database::create("inventory").unwrap(), Database::create("orders").unwrap());
        let (role, vhost) = (Role::create(format!("{}_owner", inventory.name())), Vhost::create().unwrap());
        let servers = Self { inventory, orders, role, vhost, folder: Folder::create("secrets").unwrap() };
        servers.set_broker_password(BROKER_PASSWORD[0]);
        servers
    }

    fn set_broker_password(&self, password: &str) {
        let name = self.vhost.name();
        self.vhost.management().create_user(name, password, name).unwrap();
    }

    fn amqp_url(&self) -> String {
        let (_, address) = self.vhost.amqp_url().rsplit_once('@').unwrap();
        format!("amqp://{}:{}@{address}", self.vhost.name(), BROKER_PASSWORD[1])
    }

    async fn publish_garbage(&self) {
        let connection = Connection::connect(&self.amqp_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let published = channel.basic_publish("orders".into(), "order.created".into(), options, b"{}", properties);
        published.await.unwrap().await.unwrap();
        connection.close(200, "bye".into()).await.unwrap();
    }

    fn log(&self, program: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("logs/{program}.log"))).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_in_a_whole_life_with_everything_logged() {
    let servers = Servers::create();
    let urls = ServerUrls {
        inventory_database: &servers.role.own(&servers.inventory),
        orders_database: &servers.role.own(&servers.orders),
        amqp: &servers.amqp_url(),
    };
    let (_, mut inventory, mut orders) = services(&urls, &[("RUST_LOG", "trace")], &servers.folder);
    inventory.spawn();
    orders.spawn();
    inventory.up().await;
    orders.up().await;
    let product = product(&inventory).await;
    confirmed(&orders, &placed(&orders, &product).await).await;
    servers.publish_garbage().await;
    eventually("the garbage is a dead letter", async || servers.log("ms-inventory").contains("not a valid event"))
        .await;

    // Neither server lets them in any more, until it does again.
    servers.set_broker_password("another");
    servers.vhost.close_connections().unwrap();
    servers.role.set_password("another");
    servers.inventory.close_connections().unwrap();
    servers.orders.close_connections().unwrap();
    for service in [&inventory, &orders] {
        becomes(["ACCESS_REFUSED", "password authentication failed"].map(Some), async || refusals(service).await).await;
    }
    servers.set_broker_password(BROKER_PASSWORD[0]);
    servers.role.set_password(DATABASE_PASSWORD[0]);
    inventory.up().await;
    orders.up().await;
    confirmed(&orders, &placed(&orders, &product).await).await;
    inventory.stop().await;
    orders.stop().await;

    for program in ["ms-inventory", "ms-orders"] {
        let log = servers.log(program);
        assert!(log.contains("TRACE") && log.contains("all work is finished"), "{log:.2000}");
        for secret in [DATABASE_PASSWORD, BROKER_PASSWORD].concat() {
            let bytes = format!("{:?}", secret.as_bytes());
            for shape in [secret, bytes.trim_matches(['[', ']'])] {
                let line = log.lines().find(|line| line.contains(shape)).map(|line| &line[..line.len().min(1_000)]);
                assert_eq!(line, None, "{program} logs a password");
            }
        }
    }
}

/// Which refusals of RabbitMQ and of PostgreSQL a service tells of.
async fn refusals(service: &Service) -> [Option<&'static str>; 2] {
    let Some((_, health)) = service.get("/health").await else { return [None; 2] };
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    let refused = |name: &str, refusal: &'static str| {
        let reason = health["dependencies"][name]["reason"].as_str().unwrap_or_default();
        reason.contains(refusal).then_some(refusal)
    };
    [refused("rabbitmq", "ACCESS_REFUSED"), refused("postgres", "password authentication failed")]
}

/// Runs `ms-inventory migrate` with nothing in its environment but this.
fn migrate(folder: &Path, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(instance::program("ms-inventory", PROFILE).unwrap());
    let command = command.arg("migrate").env_clear().envs(environment.iter().copied()).current_dir(folder);
    let output = command.output().unwrap();
    (output.status.code(), printed(&output))
}

#[test]
fn a_secret_may_be_in_a_file_that_the_environment_or_dot_env_names() {
    let (database, folder) = (Database::create("inventory").unwrap(), Folder::create("files").unwrap());
    let file = folder.path().join("url");
    fs::write(&file, format!("{}\n", database.url())).unwrap();
    let (name, file) = ("INVENTORY_DATABASE_URL_FILE", file.to_str().unwrap());
    assert_eq!(migrate(folder.path(), &[(name, file)]), (Some(0), String::new()));

    let both = migrate(folder.path(), &[(name, file), ("INVENTORY_DATABASE_URL", database.url())]);
    assert_eq!(both.0, Some(2));
    assert!(both.1.contains("INVENTORY_DATABASE_URL and INVENTORY_DATABASE_URL_FILE are both set"), "{}", both.1);
    let missing = migrate(folder.path(), &[(name, "/no/such/file")]);
    assert_eq!(missing.0, Some(2));
    assert!(missing.1.contains("names /no/such/file, which cannot be read"), "{}", missing.1);

    fs::write(folder.path().join(".env"), format!("{name}={file}\n")).unwrap();
    assert_eq!(migrate(folder.path(), &[]), (Some(0), String::new()));
    // The environment wins over `.env`, whichever way either tells it.
    assert_eq!(migrate(folder.path(), &[("INVENTORY_DATABASE_URL", database.url())]), (Some(0), String::new()));
    let tables = psql::execute(database.url(), &["select to_regclass('stock') is not null"]).unwrap();
    assert_eq!(tables, "t");
}
