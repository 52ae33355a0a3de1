//! Services come and go, in order or not, and so do their servers.

use std::time::{Duration, Instant};

use dev::postgres::{self, Postgres};
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::Folder;
use dev::{ports, psql, workspace};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::PgConnection;

use crate::load::Load;
use crate::service::{Api, becomes, eventually};
use crate::shop::{CREATE_ORDER, ServerUrls, Shop, services, text};

/// Orders are not asked for again in these tests: what was lost stays lost, and is seen.
const NO_SECOND_QUESTION: (&str, &str) = ("REASK_AFTER_SECONDS", "86400");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_either_service_under_load_again_and_again_loses_nothing() {
    const KILLS: usize = 16;
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let (plenty, scarce) = (shop.product("1.00", 1_000_000).await, shop.product("1.00", 100).await);
    let products = [plenty.as_str(), scarce.as_str()];
    let load = Load::begin(&shop.orders, &products);
    load.goes_on(1).await;
    for kill in 0..KILLS {
        let victim = if kill % 2 == 0 { &mut shop.inventory } else { &mut shop.orders };
        victim.kill9();
        victim.start().await;
        load.goes_on(5).await;
    }
    let ids = load.end().await;
    let confirmed = shop.assert_nothing_lost(&ids, &products).await;
    assert!(0 < confirmed && confirmed < ids.len(), "some are confirmed and some are not: {confirmed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_under_load_is_clean_and_loses_nothing() {
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let product = shop.product("1.00", 1_000_000).await;
    let load = Load::begin(&shop.orders, &[&product]);
    for _ in 0..2 {
        load.goes_on(5).await;
        shop.inventory.stop().await;
        load.goes_on(5).await;
        shop.inventory.start().await;
        load.goes_on(5).await;
        shop.orders.stop().await;
        shop.orders.start().await;
    }
    let ids = load.end().await;
    let confirmed = shop.assert_nothing_lost(&ids, &[&product]).await;
    assert_eq!(confirmed, ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_finished_before_the_end_and_meanwhile_it_is_not_ready() {
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let product = shop.product("1.00", 10).await;
    let mut stock = StockLock::take(shop.inventory_database.url()).await;
    let id = text(&shop.place(&product, 1).await["id"]);
    stock.wait_for_company().await;

    let ended = shop.inventory.terminate();
    let draining = async || shop.inventory.get("/health").await.map(|(_, body)| body.contains(r#""draining":true"#));
    becomes(Some(true), draining).await;
    assert_eq!(statuses(&shop.inventory).await, json!({"live": 200, "ready": 503, "health": 503}));
    assert!(!ended.is_finished(), "it waits for the transaction");
    stock.release().await;
    assert!(ended.await.unwrap().success());
    shop.order_once(&id, "CONFIRMED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_is_cut_off_and_the_next_instance_finishes() {
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION, ("DRAIN_TIMEOUT_SECONDS", "1")]).await;
    let product = shop.product("1.00", 10).await;
    let mut stock = StockLock::take(shop.inventory_database.url()).await;
    let id = text(&shop.place(&product, 1).await["id"]);
    stock.wait_for_company().await;

    let told = Instant::now();
    let ended = shop.inventory.terminate().await.unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(shop.order(&id).await["status"], "PENDING");
    stock.release().await;
    shop.inventory.start().await;
    shop.order_once(&id, "CONFIRMED").await;
    assert_eq!(shop.assert_nothing_lost(&[id], &[&product]).await, 1);
}

/// A transaction that keeps everyone else from reserving.
struct StockLock {
    holder: PgConnection,
    watcher: PgConnection,
}

impl StockLock {
    async fn take(database_url: &str) -> Self {
        let mut holder = PgConnection::connect(database_url).await.unwrap();
        sqlx::raw_sql("begin; lock table stock in access exclusive mode").execute(&mut holder).await.unwrap();
        Self { holder, watcher: PgConnection::connect(database_url).await.unwrap() }
    }

    /// Waits until somebody waits for it.
    async fn wait_for_company(&mut self) {
        let waiting = "select exists (
            select from pg_locks
            where not granted and database = (select oid from pg_database where datname = current_database())
        )";
        let begun = Instant::now();
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut self.watcher).await.unwrap() {
            assert!(begun.elapsed() < crate::service::DEADLINE, "nobody wants to reserve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn release(&mut self) {
        sqlx::raw_sql("rollback").execute(&mut self.holder).await.unwrap();
    }
}

/// On servers of its own, because it kills them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_start_before_their_servers_and_tell_the_truth_about_them() {
    let folder = Folder::create("servers").unwrap();
    let [database_port, broker_port] = [ports::any().unwrap(), ports::any().unwrap()];
    let database = |name: &str| format!("postgres://{name}:{name}@127.0.0.1:{database_port}/{name}");
    let servers = ServerUrls {
        inventory_database: &database("inventory"),
        orders_database: &database("orders"),
        amqp: &format!("amqp://rabbit_user:rabbit_pass@127.0.0.1:{broker_port}/%2f"),
    };
    let (_, mut inventory, mut orders) = services(&servers, &[], &folder);
    inventory.spawn();
    orders.spawn();
    for service in [&inventory, &orders] {
        tells(service, false, json!({"postgres": "down", "rabbitmq": "down"})).await;
    }

    let options = postgres::Options { port: Some(database_port), ..postgres::Options::TEST };
    let mut server = Postgres::start(&folder.path().join("postgres"), options).unwrap();
    let roles = workspace::root().unwrap().join("deploy/postgres-init.sql");
    psql::execute_file(&server.url(), &roles).unwrap();
    tells(&inventory, false, json!({"postgres": "up", "rabbitmq": "down"})).await;
    tells(&orders, true, json!({"postgres": "up", "rabbitmq": "down"})).await;

    let options = rabbitmq::Options { port: Some(broker_port), ..rabbitmq::Options::TEST };
    let mut broker = RabbitMq::start(&folder.path().join("rabbitmq"), options).unwrap();
    for service in [&inventory, &orders] {
        tells(service, true, json!({"postgres": "up", "rabbitmq": "up"})).await;
    }
    let input = json!({"sku": "TEA-1", "name": "Tea", "price": "1.00", "onHand": 10});
    let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let product = text(&inventory.ask(create, json!({"input": input})).await["id"]);
    becomes(Some(200), async || orders.get("/health").await.map(|(status, _)| status.as_u16())).await;
    let first = placed_once_known(&orders, &product).await;
    confirmed(&orders, &first).await;

    broker.kill9();
    tells(&inventory, false, json!({"postgres": "up", "rabbitmq": "down"})).await;
    tells(&orders, true, json!({"postgres": "up", "rabbitmq": "down"})).await;
    let meanwhile = placed_once_known(&orders, &product).await;
    broker.restart().unwrap();
    for service in [&inventory, &orders] {
        tells(service, true, json!({"postgres": "up", "rabbitmq": "up"})).await;
    }
    confirmed(&orders, &meanwhile).await;

    server.kill9();
    for service in [&inventory, &orders] {
        tells(service, false, json!({"postgres": "down", "rabbitmq": "up"})).await;
    }
    server.restart().unwrap();
    for service in [&inventory, &orders] {
        tells(service, true, json!({"postgres": "up", "rabbitmq": "up"})).await;
    }
    let last = placed_once_known(&orders, &product).await;
    confirmed(&orders, &last).await;
}

/// Waits until a service tells this of itself: alive in any case, ready or not, and how its two servers do, with a
/// reason for each that is down.
async fn tells(service: &Api, ready: bool, servers: Value) {
    becomes((ready, servers), async || {
        let Some((_, body)) = service.get("/health").await else { return (false, Value::Null) };
        let health: Value = serde_json::from_str(&body).unwrap();
        let server = |name: &str| {
            let server = &health["dependencies"][name];
            assert_eq!(server["status"] == "down", server["reason"].is_string(), "{health}");
            server["status"].clone()
        };
        let servers = json!({"postgres": server("postgres"), "rabbitmq": server("rabbitmq")});
        (health["ready"] == true, servers)
    })
    .await;
    let expected = if ready { 200 } else { 503 };
    let statuses = statuses(service).await;
    assert_eq!((&statuses["live"], &statuses["ready"]), (&json!(200), &json!(expected)));
}

/// What the three endpoints of health answer.
async fn statuses(service: &Api) -> Value {
    let status = async |path| service.get(path).await.expect("an answer").0.as_u16();
    let (live, ready) = (status("/health/live").await, status("/health/ready").await);
    json!({"live": live, "ready": ready, "health": status("/health").await})
}

/// Places an order for one, as soon as the product is sold; it is answered whatever is down.
async fn placed_once_known(orders: &Api, product: &str) -> String {
    let input = json!({"input": {"items": [{"productId": product, "quantity": 1}]}});
    let quote = "query($items: [ItemInput!]!) { quote(items: $items) { total } }";
    let items = json!({"items": [{"productId": product, "quantity": 1}]});
    let known = async || orders.send(quote, &items).await.unwrap()["data"]["quote"].is_object();
    eventually("the product is known", known).await;
    let order = orders.ask(CREATE_ORDER, input).await;
    assert_eq!(order["status"], "PENDING");
    text(&order["id"])
}

async fn confirmed(orders: &Api, id: &str) {
    let status = async || orders.ask("query($id: ID!) { order(id: $id) { status } }", json!({"id": id})).await;
    becomes(json!({"status": "CONFIRMED"}), status).await;
}
