use std::future::Future;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use auth::local::LocalIssuer;
use auth::{Caller, Role};
use clap::Parser;
use database::{Bounds, Pool};
use dev::proxy::Proxy;
use dev::testing::{Database, Folder, Vhost};
use events::OrderId;
use events::inventory::{ProductChanged, ProductDeleted, ProductEvent, StockEvent, StockReserved};
use messaging::Trace;
use metrics_exporter_prometheus::PrometheusHandle;
use ms_orders::catalogue::{self, Change};
use ms_orders::config::{Config, Shop};
use ms_orders::order::{self, NewOrder, News, What};
use ms_orders::{MIGRATIONS, checkout};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::inventory::EXPIRES_AT;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Whom the instances of these tests trust. Its folder goes with all the others of a test run.
static ISSUER: LazyLock<LocalIssuer> = LazyLock::new(|| {
    let folder = std::mem::ManuallyDrop::new(Folder::create("keys").unwrap());
    LocalIssuer::create(folder.path()).unwrap()
});

/// Who asks where a test does not say.
pub(crate) const ADMIN: Uuid = Uuid::from_u128(1);

/// A token that proves who its bearer is.
pub(crate) fn token(user_id: Uuid, role: Role) -> String {
    ISSUER.token(user_id, role).unwrap()
}

/// A database of its own, migrated.
pub(crate) struct World {
    /// For what the test asks of the database itself.
    pub(crate) pool: PgPool,
    /// For what is tested.
    pub(crate) connections: Pool,
    pub(crate) database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::create("orders").unwrap();
        let bounds = Bounds { database_max_connections: 10, database_acquire_timeout_seconds: 30, ..Bounds::default() };
        let pool = PgPool::connect(database.url()).await.unwrap();
        let connections = database::Database::open(&database.url().into(), "test", &bounds).unwrap().requests;
        MIGRATIONS.run(&pool).await.unwrap();
        Self { pool, connections, database }
    }

    /// Has the shop sell products at these prices.
    pub(crate) async fn sell(&self, products: &[(i64, &str)]) {
        let changes = products.iter().map(|&(product_id, price)| changed(product_id, 1, price));
        catalogue::keep(&mut self.pool.acquire().await.unwrap(), changes).await.unwrap();
    }

    /// Places an order without the API, and returns its id.
    pub(crate) async fn place(&self, items: &[(i64, i64)]) -> String {
        let mut tx = self.pool.begin().await.unwrap();
        let placed = order::place(&mut tx, &[new_order(items)], &shop()).await.unwrap().remove(0).unwrap();
        tx.commit().await.unwrap();
        placed.id
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let statement = match table {
            "orders" => "select count(*) from orders",
            "order_lines" => "select count(*) from order_lines",
            "order_steps" => "select count(*) from order_steps",
            "outbox" => "select count(*) from outbox",
            "confirmed" => "select count(*) from orders where status = 'confirmed'",
            "payments" => "select count(*) from payments",
            other => panic!("{other}"),
        };
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.unwrap()
    }

    /// Has inventory confirm an order, without the broker.
    pub(crate) async fn confirm(&self, id: &str, shop: &Shop) {
        let order_id = OrderId::try_from(id.to_owned()).unwrap();
        let expires_at = Some(EXPIRES_AT.parse().unwrap());
        let event = StockReserved { order_id: order_id.clone(), items: Vec::new(), expires_at };
        self.happens(&order_id, What::Stock(StockEvent::Reserved(event)), shop).await;
    }

    /// Has something happen to an order, without the broker.
    pub(crate) async fn happens(&self, order_id: &OrderId, what: What, shop: &Shop) {
        let news = News { order_id: order_id.clone(), what, message_id: None, trace: Trace::start() };
        let mut tx = self.pool.begin().await.unwrap();
        order::advance(&mut tx, &[news], shop.waits()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// How much the payment provider has taken for an order and not given back.
    pub(crate) async fn charged(&self, order_id: &str) -> String {
        let sum = "select coalesce(sum(amount), 0.00)::text from provider_charges where key = $1 and state = 'charged'";
        sqlx::query_scalar(sum).bind(order_id).fetch_one(&self.pool).await.unwrap()
    }

    /// Starts an instance on this database and waits until it is ready and listens to the broker.
    pub(crate) async fn start(&self, vhost: &Vhost, args: &[&str]) -> Instance {
        let instance = self.start_without_broker(vhost, args).await;
        eventually("the instance listens", async || instance.listens().await).await;
        instance
    }

    /// Starts an instance on this database and waits until it is ready, which it is without the broker.
    pub(crate) async fn start_without_broker(&self, vhost: &Vhost, args: &[&str]) -> Instance {
        let instance = Instance::start(self.database.url(), vhost.amqp_url(), args).await;
        eventually("the instance is ready", async || instance.is_ready().await).await;
        instance
    }
}

/// An order to be placed.
pub(crate) fn new_order(items: &[(i64, i64)]) -> NewOrder {
    let items = items.iter().map(|&(product_id, quantity)| events::Item { product_id, quantity });
    NewOrder {
        id: order::new_id(Uuid::now_v7()).unwrap(),
        caller: Caller { user_id: ADMIN, role: Role::Admin },
        basket: checkout::Basket::of(items).unwrap(),
        idempotency_key: None,
        payment_reference: None,
        expected_total: None,
        trace: Trace::start(),
    }
}

/// How orders are taken where nothing else is said.
pub(crate) fn shop() -> Shop {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        shop: Shop,
    }
    Cli::parse_from(["ms-orders"]).shop
}

/// A change of a product, as inventory tells it.
pub(crate) fn changed(product_id: i64, version: i64, price: &str) -> Change {
    let (sku, name, price) = (format!("SKU-{product_id}"), format!("Thing {version}"), price.parse().unwrap());
    ProductEvent::Changed(ProductChanged { product_id, sku, name, price, version }).try_into().unwrap()
}

/// The end of a product.
pub(crate) fn deleted(product_id: i64, version: i64) -> Change {
    let (sku, name, price) = (format!("SKU-{product_id}"), format!("Thing {version}"), 1.into());
    ProductEvent::Deleted(ProductDeleted { product_id, sku, name, price, version }).try_into().unwrap()
}

/// A running ms-orders.
pub(crate) struct Instance {
    pub(crate) url: String,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
    broker: Proxy,
}

impl Instance {
    pub(crate) async fn start(database_url: &str, amqp_url: &str, args: &[&str]) -> Self {
        #[derive(Parser)]
        #[command(args_override_self = true)]
        struct Cli {
            #[command(flatten)]
            config: Config,
        }
        // Nobody listens on port 9.
        let fixed =
            ["ms-orders", "--port", "0", "--inventory-url", "http://127.0.0.1:9", "--payment-delay-seconds", "3600"];
        let broker = Proxy::start_for(amqp_url).unwrap();
        let amqp_url = broker.in_front_of(amqp_url);
        let servers = ["--database-url", database_url, "--amqp-url", &amqp_url, "--jwks-url", ISSUER.jwks_url()];
        let cli = Cli::try_parse_from(fixed.iter().chain(&servers).chain(args)).unwrap();
        let shutdown = CancellationToken::new();
        let running = ms_orders::start(cli.config, metrics(), shutdown.clone()).await.unwrap();
        Self { url: format!("http://{}", running.address), shutdown, ended: running.ended, broker }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/health/ready").await.status().is_success()
    }

    /// Whether it has declared its queues and is connected.
    pub(crate) async fn listens(&self) -> bool {
        self.health().await["dependencies"]["rabbitmq"]["status"] == "up"
    }

    pub(crate) async fn health(&self) -> Value {
        self.get("/health").await.json().await.unwrap()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap()
    }

    /// Sends a GraphQL request as an ADMIN and returns the whole response.
    pub(crate) async fn send(&self, query: &str, variables: Value) -> Value {
        self.send_as(&token(ADMIN, Role::Admin), query, variables).await
    }

    /// Sends a GraphQL request with a token and returns the whole response.
    pub(crate) async fn send_as(&self, token: &str, query: &str, variables: Value) -> Value {
        let request = json!({"query": query, "variables": variables});
        let request = reqwest::Client::new().post(format!("{}/graphql", self.url)).bearer_auth(token).json(&request);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Sends a GraphQL request that has to be answered, and returns the answer of its only field.
    pub(crate) async fn ask(&self, query: &str, variables: Value) -> Value {
        let mut response = self.send(query, variables).await;
        assert!(response["errors"].is_null(), "{response}");
        let fields = response["data"].as_object_mut().unwrap();
        fields.values_mut().next().unwrap().take()
    }

    /// Sends a GraphQL request that has to be refused, and returns the one error.
    pub(crate) async fn refusal(&self, query: &str, variables: Value) -> Value {
        let mut response = self.send(query, variables).await;
        assert_eq!(response["errors"].as_array().map(Vec::len), Some(1), "{response}");
        response["errors"][0].take()
    }

    /// Places an order by the API.
    pub(crate) async fn create(&self, input: Value) -> Value {
        self.ask(CREATE, json!({"input": input})).await
    }

    /// The order as the API tells it.
    pub(crate) async fn order(&self, id: &str) -> Value {
        self.ask(ORDER, json!({"id": id})).await
    }

    /// Waits until the order has this status, and returns it.
    pub(crate) async fn order_once(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} is {status}"), async || self.order(id).await["status"] == status).await;
        self.order(id).await
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.ended).await.expect("drained in time").unwrap().unwrap();
    }

    /// Ends it wherever it is, as a killed process would: with its connection to the broker. lapin's own lives on where a
    /// consumer was just being begun.
    pub(crate) async fn kill(self) {
        self.ended.abort();
        self.ended.await.ok();
        self.broker.reset_all();
    }
}

pub(crate) const CREATE: &str = "mutation($input: CreateOrderInput!) {
  createOrder(input: $input) {
    id status subtotal fee total paymentReference
    items { productId sku name quantity unitPrice total }
  }
}";

const ORDER: &str = "query($id: ID!) {
  order(id: $id) {
    id status subtotal fee total reason expiresAt updatedAt explain
    payment { status amount attempts nextAttemptAt }
    shortages { productId requested available }
    items { productId quantity unitPrice }
    timeline { status cause messageId traceId at }
  }
}";

/// The one recorder of this process.
fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| boot::telemetry::metrics().unwrap()).clone()
}

/// Waits until the condition holds, with a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "still not so after {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
