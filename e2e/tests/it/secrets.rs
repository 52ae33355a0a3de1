//! Secrets reach the services by their environment or by files, and never a log.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use dev::testing::{DATABASE_VARIABLE, Database, Folder, Vhost};
use dev::{instance, psql};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::health::{confirmed, placed, product};
use crate::service::{PROFILE, Service, becomes, eventually};
use crate::shop::{ServerUrls, Services, printed, services, text};

/// As the servers know them, and as URLs tell them.
const DATABASE_PASSWORD: [&str; 2] = ["Quartz@Vellum7", "Quartz%40Vellum7"];
const BROKER_PASSWORD: [&str; 2] = ["Saffron@Kestrel9", "Saffron%40Kestrel9"];

/// Of an account.
const USER_PASSWORD: &str = "Marble Otter 4 Lantern";

const KEY_ENCRYPTION_SECRET: &str = "Cobalt Heron 2 Thicket";

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
    users: Database,
    // After the databases it owns.
    role: Role,
    vhost: Vhost,
    folder: Folder,
}

impl Servers {
    fn create() -> Self {
        let [inventory, orders, users] = ["inventory", "orders", "users"].map(|name| Database::create(name).unwrap());
        let (role, vhost) = (Role::create(format!("{}_owner", inventory.name())), Vhost::create().unwrap());
        let servers = Self { inventory, orders, users, role, vhost, folder: Folder::create("secrets").unwrap() };
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
        users_database: &servers.role.own(&servers.users),
        inventory_amqp: &servers.amqp_url(),
        orders_amqp: &servers.amqp_url(),
    };
    let settings = [("RUST_LOG", "trace"), ("KEY_ENCRYPTION_SECRET", KEY_ENCRYPTION_SECRET)];
    let Services { mut inventory, mut orders, mut users, .. } = services(&urls, &settings, &servers.folder);
    for service in [&mut inventory, &mut orders, &mut users] {
        service.spawn();
    }
    for service in [&inventory, &orders, &users] {
        service.up().await;
    }
    let tokens = lived(&users).await;
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
    servers.users.close_connections().unwrap();
    for service in [&inventory, &orders] {
        becomes(["ACCESS_REFUSED", "password authentication failed"].map(Some), async || refusals(service).await).await;
    }
    servers.set_broker_password(BROKER_PASSWORD[0]);
    servers.role.set_password(DATABASE_PASSWORD[0]);
    for service in [&inventory, &orders, &users] {
        service.up().await;
    }
    confirmed(&orders, &placed(&orders, &product).await).await;
    let tokens: Vec<String> = tokens.into_iter().chain([orders.token().to_owned()]).collect();
    for service in [&mut inventory, &mut orders, &mut users] {
        service.stop().await;
    }

    let own = [USER_PASSWORD, KEY_ENCRYPTION_SECRET].into_iter().chain(tokens.iter().map(String::as_str));
    let secrets: Vec<&str> = [DATABASE_PASSWORD, BROKER_PASSWORD].concat().into_iter().chain(own).collect();
    for program in ["ms-inventory", "ms-orders", "ms-users"] {
        let log = servers.log(program);
        assert!(log.contains("TRACE") && log.contains("all work is finished"), "{log:.2000}");
        for &secret in &secrets {
            let bytes = format!("{:?}", secret.as_bytes());
            for shape in [secret, bytes.trim_matches(['[', ']'])] {
                let line = log.lines().find(|line| line.contains(shape)).map(|line| &line[..line.len().min(1_000)]);
                assert_eq!(line, None, "{program} logs a secret");
            }
        }
    }
}

/// Registers, signs in, mistypes, refreshes and signs out; all tokens there were.
async fn lived(users: &Service) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut keep = |session: &serde_json::Value| {
        tokens.extend(["accessToken", "refreshToken"].map(|name| text(&session[name])));
        text(&session["refreshToken"])
    };
    let register = "mutation($email: String!, $password: String!) {
      register(email: $email, password: $password) { accessToken refreshToken }
    }";
    let account = json!({"email": "ann@example.com", "password": USER_PASSWORD});
    let token = keep(&users.ask(register, account.clone()).await);
    let login = register.replace("register(", "login(");
    keep(&users.ask(&login, account).await);
    let mistyped = json!({"email": "ann@example.com", "password": format!("{USER_PASSWORD}.")});
    users.send(&login, &mistyped).await.unwrap();
    let refresh = "mutation($token: String!) { refresh(refreshToken: $token) { accessToken refreshToken } }";
    let token = keep(&users.ask(refresh, json!({"token": token})).await);
    users.ask("mutation($token: String!) { logout(refreshToken: $token) }", json!({"token": token})).await;
    tokens
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

    // Compose files set the variable as well: the file wins, and an empty variable counts as none.
    for other in ["postgres://127.0.0.1:9/nothing", ""] {
        let both = migrate(folder.path(), &[(name, file), ("INVENTORY_DATABASE_URL", other)]);
        assert_eq!(both, (Some(0), String::new()));
    }
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

/// What `serve` says, with this environment and no other, before it ends by itself.
fn refused(program: &str, environment: &[(&str, &str)]) -> String {
    let folder = Folder::create("demo").unwrap();
    let mut command = Command::new(instance::program(program, PROFILE).unwrap());
    let output = command.arg("serve").env_clear().envs(environment.iter().copied()).current_dir(folder.path()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    printed(&output)
}

#[test]
fn outside_of_development_no_service_starts_with_a_secret_that_everybody_knows() {
    for (program, variable) in [
        ("ms-inventory", "INVENTORY_DATABASE_URL"),
        ("ms-orders", "ORDERS_DATABASE_URL"),
        ("ms-users", "USERS_DATABASE_URL"),
    ] {
        let said = refused(program, &[]);
        assert!(said.contains(variable) && said.contains("ENVIRONMENT=development"), "{said}");
        let own = [(variable, "postgres://127.0.0.1:9/own")];
        let next = if program == "ms-users" { "KEY_ENCRYPTION_SECRET" } else { "AMQP_URL" };
        assert!(refused(program, &own).contains(next), "{program}");
    }
    let own = [
        ("USERS_DATABASE_URL", "postgres://127.0.0.1:9/own"),
        ("KEY_ENCRYPTION_SECRET", "a secret of our own"),
        ("DEMO_ACCOUNTS", "true"),
    ];
    assert!(refused("ms-users", &own).contains("DEMO_ACCOUNTS"));
}
