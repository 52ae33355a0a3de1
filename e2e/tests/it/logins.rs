//! Each service may do at the servers what it has to, and nothing else.

use std::process::{Command, Output};

use dev::logins::Logins;
use dev::management::Management;
use dev::postgres::{self, Postgres};
use dev::services::SERVICES;
use dev::testing::Folder;
use dev::{psql, workspace};
use events::{inventory, orders, queues};
use serde_json::{Value, json};

use crate::attempts::Answer::{Allowed, Refused};
use crate::attempts::Login;
use crate::service::{Api, becomes, eventually};
use crate::shop::{Shop, printed, text};
use crate::tools::publish;

/// A service as the broker knows it.
struct Side {
    program: &'static str,
    exchange: &'static str,
    queues: [&'static str; 2],
}

const INVENTORY: Side = Side {
    program: "ms-inventory",
    exchange: inventory::EXCHANGE,
    queues: [queues::ORDER_CREATED, queues::ORDER_SETTLED],
};

const ORDERS: Side = Side {
    program: "ms-orders",
    exchange: orders::EXCHANGE,
    queues: [queues::STOCK_OUTCOMES, queues::PRODUCT_CHANGES],
};

#[tokio::test]
async fn no_service_touches_what_belongs_to_another() {
    let shop = Shop::open().await;
    for (me, other) in [(INVENTORY, ORDERS), (ORDERS, INVENTORY)] {
        let login = Login::at(&shop.vhost.amqp_url_of(me.program).unwrap()).await;
        // That it is not refused everything.
        assert_eq!(login.publish(me.exchange, "nobody.listens").await, Allowed);
        assert_eq!(login.get(&queues::dead(me.queues[0])).await, Allowed);

        for queue in other.queues {
            let replay = queues::replay(queue);
            for exchange in [other.exchange, &replay, ""] {
                assert_eq!(login.publish(exchange, queue).await, Refused, "publishes to {exchange} for {queue}");
            }
            assert_eq!(login.bind(queue, me.exchange).await, Refused, "binds {queue} to its own exchange");
            assert_eq!(login.bind(me.queues[0], &replay).await, Refused, "hears what is replayed to {queue}");
            assert_eq!(login.delete_exchange(&replay).await, Refused, "deletes {replay}");
            for queue in [queue, &queues::dead(queue), &queues::retry(queue)] {
                assert_eq!(login.get(queue).await, Refused, "gets from {queue}");
                assert_eq!(login.consume(queue).await, Refused, "consumes {queue}");
                assert_eq!(login.purge(queue).await, Refused, "purges {queue}");
                assert_eq!(login.delete_queue(queue).await, Refused, "deletes {queue}");
            }
        }
        assert_eq!(login.delete_exchange(other.exchange).await, Refused, "deletes {}", other.exchange);
        assert_eq!(login.declare_exchange(other.exchange).await, Refused, "declares {}", other.exchange);
        assert_eq!(login.bind_exchange(other.exchange, queues::DEAD_LETTERS).await, Refused, "sends letters elsewhere");
        assert_eq!(login.declare_exchange("another-exchange").await, Refused);
        for name in ["another-queue", ""] {
            assert_eq!(login.declare_queue(name).await, Refused, "declares a queue {name:?}");
        }
    }
}

#[tokio::test]
async fn no_service_may_look_into_the_management_of_the_broker() {
    let shop = Shop::closed(&[]);
    for program in [INVENTORY.program, ORDERS.program] {
        let url = shop.vhost.amqp_url_of(program).unwrap();
        let (user, password) = url.strip_prefix("amqp://").unwrap().split_once('@').unwrap().0.split_once(':').unwrap();
        let refused = Management::new(shop.vhost.management().base_url(), user, password).version().unwrap_err();
        assert!(format!("{refused:#}").contains("401"), "{program}: {refused:#}");
    }
}

#[tokio::test]
async fn orders_live_and_letters_come_back_by_the_logins_of_the_services() {
    let shop = Shop::open_with(&[("PAYMENT_DELAY_SECONDS", "0"), ("PAYMENT_PERIOD_MS", "50")]).await;
    let product = shop.product("2.00", 10).await;
    let paid = text(&shop.place(&product, 1).await["id"]);
    shop.order_once(&paid, "COMPLETED").await;
    let refused = text(&shop.place(&product, 11).await["id"]);
    shop.order_once(&refused, "CANCELLED").await;
    let refund = "mutation($id: ID!) { refundOrder(id: $id, reason: \"wrong colour\") { status } }";
    shop.orders.ask(refund, json!({"id": paid})).await;
    becomes(json!(10), async || shop.levels(&product).await["available"].clone()).await;

    for (side, exchange, key) in
        [(INVENTORY, orders::EXCHANGE, "order.created"), (ORDERS, inventory::EXCHANGE, "stock.reserved")]
    {
        let letters = |arguments: &[&str]| shop.run(side.program, &[&["dead-letters"], arguments].concat());
        let is_there = async || printed(&letters(&["list"])).ends_with("\n1 dead letters\n");
        publish(&shop, exchange, key, "malformed").await;
        eventually("the letter is there", is_there).await;
        let replayed = async || printed(&letters(&["replay", "--all"])) == "1 replayed\n";
        eventually("it is replayed", replayed).await;
        // It is as malformed as before.
        eventually("it is there again", is_there).await;
        let purged = async || printed(&letters(&["purge", "--all"])) == "1 purged\n";
        eventually("it is purged", purged).await;
    }
}

#[tokio::test]
async fn the_exchange_of_dead_letters_comes_back_by_the_logins_of_the_services() {
    let shop = Shop::open().await;
    let administrator = Login::at(shop.vhost.amqp_url()).await;
    for (side, exchange, key) in
        [(INVENTORY, orders::EXCHANGE, "order.created"), (ORDERS, inventory::EXCHANGE, "stock.reserved")]
    {
        assert_eq!(administrator.delete_exchange(queues::DEAD_LETTERS).await, Allowed);
        publish(&shop, exchange, key, "malformed").await;
        eventually("the letter is there", async || {
            printed(&shop.run(side.program, &["dead-letters", "list"])).ends_with("\n1 dead letters\n")
        })
        .await;
    }
}

#[tokio::test]
async fn a_permission_that_is_missing_is_told_until_it_is_given() {
    let mut shop = Shop::closed(&[]);
    let (management, vhost) = (shop.vhost.management(), shop.vhost.name());
    let user = shop.vhost.user_of(INVENTORY.program);
    let permit = |kind: &str, names: &str| {
        let mut permissions = json!({"configure": ".*", "write": ".*", "read": ".*"});
        permissions[kind] = json!(names);
        management.permit(&user, vhost, &permissions).unwrap();
    };
    permit("configure", "^$");
    shop.inventory.spawn();
    for (kind, names, missing) in [
        ("configure", "^$", "cannot declare the exchange inventory: "),
        ("configure", "^inventory$", "cannot declare the queue order.created.inventory.dead: "),
        (
            "read",
            r"^(dead-letters|order\..*)$",
            "cannot bind the queue order.created.inventory to the exchange orders: ",
        ),
        ("write", r"^(dead-letters|order\..*)$", "cannot publish to the exchange inventory: "),
    ] {
        permit(kind, names);
        eventually(missing, async || refused(&shop.inventory).await.starts_with(missing)).await;
    }
    management.import(&Logins::read().unwrap().in_vhost(vhost).unwrap()).unwrap();
    shop.inventory.up().await;
}

#[tokio::test]
async fn an_exchange_that_is_missing_is_told_to_who_may_not_make_it() {
    let mut shop = Shop::closed(&[]);
    let administrator = Login::at(shop.vhost.amqp_url()).await;
    assert_eq!(administrator.delete_exchange(orders::EXCHANGE).await, Allowed);
    shop.inventory.spawn();
    let missing = "an exchange is missing: cannot declare the exchange orders: ";
    eventually(missing, async || refused(&shop.inventory).await.starts_with(missing)).await;
    // The one whose it is makes it.
    shop.orders.spawn();
    shop.inventory.up().await;
    shop.orders.up().await;
}

/// Why a service that is not ready says it cannot use the broker, if that is what it may not do.
async fn refused(service: &Api) -> String {
    let Some((_, health)) = service.get("/health").await else { return String::new() };
    let health: Value = serde_json::from_str(&health).unwrap();
    let reason = health["dependencies"]["rabbitmq"]["reason"].as_str();
    let reason = reason.filter(|reason| reason.contains("ACCESS_REFUSED") && health["ready"] == false);
    reason.unwrap_or_default().to_owned()
}

#[test]
fn each_service_reaches_its_own_database_and_no_other() {
    let folder = Folder::create("roles").unwrap();
    let server = Postgres::start(folder.path(), postgres::Options::TEST).unwrap();
    let script = workspace::root().unwrap().join("deploy/postgres-init.sql");
    for _ in 0..2 {
        psql::execute_file(&server.url(), &script).unwrap();
    }
    let databases = SERVICES.map(|service| service.name);
    for me in databases {
        let ask = |database: &str, statement: &str| {
            let url = psql::rewrite_url(&server.url(), Some((me, me)), database).unwrap();
            psql::execute(&url, &[statement])
        };
        for other in databases.into_iter().chain(["postgres", "template1"]).filter(|other| *other != me) {
            let refused = ask(other, "select 1").unwrap_err().to_string();
            assert!(refused.contains("permission denied for database"), "{me} in {other}: {refused}");
        }
        let rights = "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
                (select count(*) from pg_auth_members where member = pg_roles.oid)
            from pg_roles where rolname = current_user";
        assert_eq!(ask(me, rights).unwrap(), "f|f|f|f|f|0", "{me}");
        for statement in ["create role another", "create database another"] {
            let refused = ask(me, statement).unwrap_err().to_string();
            assert!(refused.contains("permission denied"), "{me}: {statement}: {refused}");
        }
        // What migrations do.
        ask(me, "create table mine (id int)").unwrap();
        ask(me, "create extension pg_trgm").unwrap();
    }
}

#[test]
fn another_broker_gets_the_same_permissions_with_other_passwords() {
    let print = |password: &str| -> Output {
        let script = workspace::root().unwrap().join("deploy/rabbitmq-definitions.sh");
        let mut command = Command::new("sh");
        command.arg(script).env("RABBITMQ_USER", "boss").env("RABBITMQ_PASSWORD", "orders_pass");
        command.env("INVENTORY_RABBITMQ_PASSWORD", password).env("ORDERS_RABBITMQ_PASSWORD", "-._~");
        command.output().unwrap()
    };
    let printed: Value = serde_json::from_slice(&print("orders_pass").stdout).unwrap();
    let mut expected = Logins::read().unwrap().definitions().clone();
    expected["permissions"][0]["user"] = json!("boss");
    expected["users"] = json!([
        {"name": "boss", "password": "orders_pass", "tags": ["administrator"]},
        {"name": "ms-inventory", "password": "orders_pass", "tags": []},
        {"name": "ms-orders", "password": "-._~", "tags": []},
    ]);
    assert_eq!(printed, expected);
    for unfit in ["", "a&b", "a/b", "a\"b", "a b", "a\nb", "ä"] {
        let refused = print(unfit);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{unfit:?} was taken");
    }
}
