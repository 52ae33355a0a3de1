//! What the services tell of the servers they use, and what they still do while one is gone.

use std::path::Path;

use dev::postgres::{self, Postgres};
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::Folder;
use dev::{ports, psql, workspace};
use serde_json::{Value, json};

use crate::service::{Api, becomes, eventually};
use crate::shop::{CREATE_ORDER, ServerUrls, Services, services, text};

const BOTH_UP: [&str; 2] = ["up", "up"];

/// On servers of its own, because it kills them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_start_before_their_servers_and_tell_the_truth_about_them() {
    let folder = Folder::create("servers").unwrap();
    let [database_port, broker_port] = [ports::any().unwrap(), ports::any().unwrap()];
    let database = |name: &str| format!("postgres://{name}:{name}@127.0.0.1:{database_port}/{name}");
    let amqp = format!("amqp://{}:{}@127.0.0.1:{broker_port}/%2f", rabbitmq::USER, rabbitmq::PASSWORD);
    let servers = ServerUrls {
        inventory_database: &database("inventory"),
        orders_database: &database("orders"),
        users_database: &database("users"),
        inventory_amqp: &amqp,
        orders_amqp: &amqp,
    };
    let Services { mut inventory, mut orders, .. } = services(&servers, &[], &folder);
    inventory.spawn();
    orders.spawn();
    // Postgres, then RabbitMQ. Orders can do without the latter.
    let tell = async |of_them: [&str; 2], inventory_ready, orders_ready| {
        tokio::join!(tells(&inventory, inventory_ready, of_them), tells(&orders, orders_ready, of_them));
    };
    tell(["down", "down"], false, false).await;

    let mut server = postgres_on(database_port, folder.path());
    tell(["up", "down"], false, true).await;
    let options = rabbitmq::Options { port: Some(broker_port), ..rabbitmq::Options::TEST };
    let mut broker = RabbitMq::start(&folder.path().join("rabbitmq"), options).unwrap();
    tell(BOTH_UP, true, true).await;
    let product = product(&inventory).await;
    let before = placed(&orders, &product).await;
    confirmed(&orders, &before).await;

    broker.kill9();
    tell(["up", "down"], false, true).await;
    let meanwhile = placed(&orders, &product).await;
    broker.restart().unwrap();
    tell(BOTH_UP, true, true).await;
    confirmed(&orders, &meanwhile).await;

    server.kill9();
    tell(["down", "up"], false, false).await;
    server.restart().unwrap();
    tell(BOTH_UP, true, true).await;
    let after = placed(&orders, &product).await;
    confirmed(&orders, &after).await;
}

/// A server with the roles and databases that `cargo dev up` and the containers have.
fn postgres_on(port: u16, folder: &Path) -> Postgres {
    let options = postgres::Options { port: Some(port), ..postgres::Options::TEST };
    let server = Postgres::start(&folder.join("postgres"), options).unwrap();
    psql::execute_file(&server.url(), &workspace::root().unwrap().join("deploy/postgres-init.sql")).unwrap();
    server
}

/// Waits until a service tells this of itself: that it lives, whether it is ready, and how its servers do.
async fn tells(service: &Api, ready: bool, of_them: [&str; 2]) {
    let [postgres, rabbitmq] = of_them;
    let ready_status = if ready { 200 } else { 503 };
    let expected = json!({
        "/health/live": 200, "/health/ready": ready_status, "ready": ready, "postgres": postgres, "rabbitmq": rabbitmq
    });
    becomes(expected, async || told(service).await).await;
}

async fn told(service: &Api) -> Value {
    let paths = ["/health/live", "/health/ready", "/health"];
    let answers = futures::future::join_all(paths.map(|path| service.get(path))).await;
    let [Some((live, _)), Some((ready, _)), Some((status, body))] = answers.as_slice() else { return Value::Null };
    let health: Value = serde_json::from_str(body).unwrap();
    let dependencies = health["dependencies"].as_object().unwrap();
    for (name, dependency) in dependencies {
        assert_eq!(dependency["status"] == "down", dependency["reason"].is_string(), "{name}: {health}");
    }
    let all_up = dependencies.values().all(|dependency| dependency["status"] == "up");
    assert_eq!((status == &200, health["status"] == "up"), (all_up, all_up), "{health}");
    json!({
        "/health/live": live.as_u16(),
        "/health/ready": ready.as_u16(),
        "ready": health["ready"],
        "postgres": dependencies["postgres"]["status"],
        "rabbitmq": dependencies["rabbitmq"]["status"],
    })
}

/// A new product, of which there are ten.
pub(crate) async fn product(inventory: &Api) -> String {
    let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let input = json!({"sku": "TEA-1", "name": "Tea", "price": "1.00", "onHand": 10});
    text(&inventory.ask(create, json!({"input": input})).await["id"])
}

/// Places an order for one, as soon as orders knows the product.
pub(crate) async fn placed(orders: &Api, product: &str) -> String {
    let items = json!([{"productId": product, "quantity": 1}]);
    let quote = "query($items: [ItemInput!]!) { quote(items: $items) { total } }";
    let variables = json!({"items": items});
    let known = async || orders.send(quote, &variables).await.unwrap()["data"]["quote"].is_object();
    eventually("the product is known", known).await;
    let order = orders.ask(CREATE_ORDER, json!({"input": {"items": items}})).await;
    assert_eq!(order["status"], "PENDING");
    text(&order["id"])
}

/// Waits until inventory has confirmed the order.
pub(crate) async fn confirmed(orders: &Api, id: &str) {
    let status = async || orders.ask("query($id: ID!) { order(id: $id) { status } }", json!({"id": id})).await;
    becomes(json!({"status": "CONFIRMED"}), status).await;
}
