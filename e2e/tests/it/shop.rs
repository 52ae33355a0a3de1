use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use auth::Role;
use auth::local::LocalIssuer;
use boot::demo;
use dev::testing::{Database, Folder, Vhost};
use dev::{instance, ports};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::permit::Permit;
use crate::service::{PROFILE, Service, eventually};

/// All services, on databases and a vhost of their own, each with a login that may do no more than it has to.
pub(crate) struct Shop {
    /// Runs only in a shop [with accounts](Shop::open_with_accounts): the others trust an issuer of the tests.
    pub(crate) users: Service,
    pub(crate) inventory: Service,
    pub(crate) orders: Service,
    environment: Vec<(String, String)>,
    // Dropped after the services that use them.
    pub(crate) inventory_database: Database,
    orders_database: Database,
    users_database: Database,
    pub(crate) vhost: Vhost,
    folder: Folder,
}

impl Shop {
    /// Both run, and have all they use.
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    /// Both run with these variables in their environment, and have all they use.
    pub(crate) async fn open_with(settings: &[(&str, &str)]) -> Self {
        let mut shop = Self::closed(settings);
        shop.inventory.spawn();
        shop.orders.spawn();
        shop.inventory.up().await;
        shop.orders.up().await;
        shop
    }

    fn seed(&self) {
        let seeded = self.run("seed-data", &[]);
        assert!(seeded.status.success(), "{}", printed(&seeded));
    }

    /// All run with these variables in their environment, and the tokens that count are those of ms-users, which has the
    /// demo accounts. The others are asked with a token of its ADMIN.
    pub(crate) async fn open_with_accounts(settings: &[(&str, &str)]) -> Self {
        Self::closed(settings).with_accounts().await
    }

    /// The same on the sample catalogue.
    pub(crate) async fn seeded_with_accounts() -> Self {
        let shop = Self::closed(&[]);
        shop.seed();
        shop.with_accounts().await
    }

    async fn with_accounts(self) -> Self {
        let mut shop = self;
        let keys = format!("{}{}", shop.users.url, auth::keys::PATH);
        for service in [&mut shop.inventory, &mut shop.orders] {
            service.tell("JWKS_URL", &keys);
        }
        shop.environment.push(("JWKS_URL".to_owned(), keys));
        for service in [&mut shop.users, &mut shop.inventory, &mut shop.orders] {
            service.spawn();
        }
        for service in [&shop.users, &shop.inventory, &shop.orders] {
            service.up().await;
        }
        let token = shop.login(demo::ADMIN_EMAIL, demo::ADMIN_PASSWORD).await;
        for service in [&mut shop.users, &mut shop.inventory, &mut shop.orders] {
            service.ask_with(&token);
        }
        shop
    }

    /// An access token of an account.
    pub(crate) async fn login(&self, email: &str, password: &str) -> String {
        let login = "mutation($email: String!, $password: String!) {
          login(email: $email, password: $password) { accessToken }
        }";
        let session = self.users.ask(login, json!({"email": email, "password": password})).await;
        text(&session["accessToken"])
    }

    /// Opens the account of a USER, and returns an access token of it.
    pub(crate) async fn register(&self, email: &str) -> String {
        let register = "mutation($email: String!, $password: String!) {
          register(email: $email, password: $password) { accessToken }
        }";
        let account = json!({"email": email, "password": "correct horse battery"});
        text(&self.users.ask(register, account).await["accessToken"])
    }

    /// Has the ADMIN disable an account.
    pub(crate) async fn disable(&self, email: &str) {
        let users = "query($email: String) { users(search: $email) { nodes { id } } }";
        let found = self.users.ask(users, json!({"email": email})).await;
        let disable = "mutation($id: ID!) { disableUser(userId: $id) { id } }";
        self.users.ask(disable, json!({"id": found["nodes"][0]["id"]})).await;
    }

    /// Nothing runs yet.
    pub(crate) fn closed(settings: &[(&str, &str)]) -> Self {
        let [inventory_database, orders_database, users_database] =
            ["inventory", "orders", "users"].map(|name| Database::create(name).unwrap());
        let vhost = Vhost::create_for_services().unwrap();
        let servers = ServerUrls {
            inventory_database: inventory_database.url(),
            orders_database: orders_database.url(),
            users_database: users_database.url(),
            inventory_amqp: &vhost.amqp_url_of("ms-inventory").unwrap(),
            orders_amqp: &vhost.amqp_url_of("ms-orders").unwrap(),
        };
        let folder = Folder::create("e2e").unwrap();
        let Services { environment, inventory, orders, users } = services(&servers, settings, &folder);
        Self {
            users,
            inventory,
            orders,
            environment,
            inventory_database,
            orders_database,
            users_database,
            vhost,
            folder,
        }
    }

    /// Runs one of the programs to its end, with the environment of the services; a service's own with its login.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// The same, not run yet.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let amqp = self.vhost.amqp_url_of(program).unwrap_or_else(|_| self.vhost.amqp_url().to_owned());
        command(program, arguments, &with_amqp(&self.environment, &amqp), &self.folder)
    }

    /// Runs one of the programs to its end, told nothing but by its arguments.
    pub(crate) fn run_without_environment(&self, program: &str, arguments: &[&str]) -> Output {
        command(program, arguments, &[], &self.folder).output().unwrap()
    }

    /// Where the logs of the services are, and room for more.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Direct access to what inventory knows.
    pub(crate) async fn inventory_pool(&self) -> PgPool {
        PgPool::connect(self.inventory_database.url()).await.unwrap()
    }

    /// Direct access to what orders knows.
    pub(crate) async fn orders_pool(&self) -> PgPool {
        PgPool::connect(self.orders_database.url()).await.unwrap()
    }

    /// Direct access to what ms-users knows.
    pub(crate) async fn users_pool(&self) -> PgPool {
        PgPool::connect(self.users_database.url()).await.unwrap()
    }

    /// A new product, of which orders has heard; its id.
    pub(crate) async fn product(&self, price: &str, on_hand: i64) -> String {
        let id = self.unannounced_product(price, on_hand).await;
        eventually("orders knows the product", async || self.unit_price(&id).await.is_some()).await;
        id
    }

    /// A new product; its id.
    pub(crate) async fn unannounced_product(&self, price: &str, on_hand: i64) -> String {
        let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
        let sku = Uuid::now_v7().to_string();
        let input = json!({"sku": sku, "name": "Thing", "price": price, "onHand": on_hand});
        text(&self.inventory.ask(create, json!({"input": input})).await["id"])
    }

    /// What orders would ask for one of the product; `None` where it does not know it.
    pub(crate) async fn unit_price(&self, id: &str) -> Option<String> {
        let quote = "query($items: [ItemInput!]!) { quote(items: $items) { subtotal } }";
        let items = json!({"items": [{"productId": id, "quantity": 1}]});
        let response = self.orders.send(quote, &items).await.unwrap();
        response["data"]["quote"]["subtotal"].as_str().map(str::to_owned)
    }

    /// Places an order for one product.
    pub(crate) async fn place(&self, product_id: &str, quantity: i64) -> Value {
        let input = json!({"items": [{"productId": product_id, "quantity": quantity}]});
        self.orders.ask(CREATE_ORDER, json!({"input": input})).await
    }

    /// The order, as orders tells it.
    pub(crate) async fn order(&self, id: &str) -> Value {
        self.orders.ask(ORDER, json!({"id": id})).await
    }

    /// Waits until the order has this status, and returns it.
    pub(crate) async fn order_once(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} is {status}"), async || self.order(id).await["status"] == status).await;
        self.order(id).await
    }

    /// What inventory holds for the order.
    pub(crate) async fn hold(&self, order_id: &str) -> Value {
        self.inventory.ask(HOLD, json!({"orderId": order_id})).await
    }

    /// The levels of a product.
    pub(crate) async fn levels(&self, product_id: &str) -> Value {
        let product = "query($id: ID!) { product(id: $id) { onHand reserved available } }";
        self.inventory.ask(product, json!({"id": product_id})).await
    }
}

pub(crate) const CREATE_ORDER: &str = "mutation($input: CreateOrderInput!) {
  createOrder(input: $input) { id status subtotal fee total }
}";

const ORDER: &str = "query($id: ID!) {
  order(id: $id) {
    id status subtotal fee total reason expiresAt
    shortages { productId requested available }
    items { productId quantity unitPrice }
    timeline { status cause messageId traceId at }
  }
}";

const HOLD: &str = "query($orderId: ID!) {
  hold(orderId: $orderId) {
    orderId status expiresAt reason
    items { productId quantity }
    shortages { productId requested available }
  }
}";

/// Where the servers of the services are.
pub(crate) struct ServerUrls<'a> {
    pub(crate) inventory_database: &'a str,
    pub(crate) orders_database: &'a str,
    pub(crate) users_database: &'a str,
    pub(crate) inventory_amqp: &'a str,
    pub(crate) orders_amqp: &'a str,
}

/// All services, and the environment they and the programs beside them get, without a broker.
pub(crate) struct Services {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) inventory: Service,
    pub(crate) orders: Service,
    pub(crate) users: Service,
}

/// The services, not running, asked by an ADMIN of an issuer that has its keys in `folder`. It waits for a [`Permit`], and
/// blocks its thread.
pub(crate) fn services(servers: &ServerUrls<'_>, settings: &[(&str, &str)], folder: &Folder) -> Services {
    let permit = Arc::new(Permit::acquire());
    let issuer = LocalIssuer::create(folder.path()).unwrap();
    let token = issuer.token(Uuid::from_u128(1), Role::Admin).unwrap();
    let [inventory_port, orders_port, users_port] = [0; 3].map(|_| ports::any().unwrap());
    let scheme = if settings.iter().any(|(name, _)| *name == "TLS_CERT_FILE") { "https" } else { "http" };
    let url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
    let own = [
        ("INVENTORY_DATABASE_URL", servers.inventory_database.to_owned()),
        ("ORDERS_DATABASE_URL", servers.orders_database.to_owned()),
        ("USERS_DATABASE_URL", servers.users_database.to_owned()),
        ("ENVIRONMENT", "development".to_owned()),
        ("DEMO_ACCOUNTS", "true".to_owned()),
        ("RATE_LIMIT_COST_PER_SECOND", "0".to_owned()),
        ("JWKS_URL", issuer.jwks_url().to_owned()),
        ("USERS_PORT", users_port.to_string()),
        ("USERS_URL", url(users_port)),
        ("INVENTORY_PORT", inventory_port.to_string()),
        ("ORDERS_PORT", orders_port.to_string()),
        ("INVENTORY_URL", url(inventory_port)),
        ("ORDERS_URL", url(orders_port)),
        ("PAYMENT_DELAY_SECONDS", "3600".to_owned()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let environment: Vec<_> = own.into_iter().chain(settings).collect();
    let service =
        |program, port, environment: &[_]| Service::new(program, &url(port), folder.path(), environment, &token);
    let mut inventory = service("ms-inventory", inventory_port, &with_amqp(&environment, servers.inventory_amqp));
    let mut orders = service("ms-orders", orders_port, &with_amqp(&environment, servers.orders_amqp));
    let mut users = service("ms-users", users_port, &environment);
    for service in [&mut inventory, &mut orders, &mut users] {
        service.keep(&permit);
    }
    Services { environment, inventory, orders, users }
}

pub(crate) fn with_amqp(environment: &[(String, String)], url: &str) -> Vec<(String, String)> {
    environment.iter().cloned().chain([("AMQP_URL".to_owned(), url.to_owned())]).collect()
}

/// One of the programs, not run yet.
pub(crate) fn command(program: &str, arguments: &[&str], environment: &[(String, String)], folder: &Folder) -> Command {
    let mut command = Command::new(instance::program(program, PROFILE).unwrap());
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(folder.path());
    command
}

/// What a program printed.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A text of a GraphQL answer.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
