//! How the service starts and stops.

use std::time::Duration;

use dev::proxy::Proxy;
use dev::testing::{Database, Vhost};
use serde_json::json;

use crate::fills::Listing;
use crate::inventory::Inventory;
use crate::world::{Instance, World, eventually};

#[tokio::test]
async fn it_starts_before_its_servers_and_is_ready_when_the_database_is() {
    // A database that is there only later: the name is free again.
    let database = Database::create("orders_later").unwrap();
    let (url, name) = (database.url().to_owned(), database.name().to_owned());
    drop(database);
    let instance = Instance::start(&url, "amqp://nobody:nothing@127.0.0.1:9/none", &[]).await;
    assert!(!instance.is_ready().await);
    let health = instance.health().await;
    assert_eq!(health["dependencies"]["postgres"]["status"], "down");

    let server = Database::create("orders_server").unwrap();
    let pool = sqlx::PgPool::connect(server.url()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&pool).await.unwrap();
    eventually("the service is ready", async || instance.is_ready().await).await;
    assert_eq!(instance.health().await["dependencies"]["rabbitmq"]["status"], "down");
    assert_eq!(instance.ask("{ orders { totalCount } }", json!({})).await["totalCount"], 0);
    instance.stop().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&pool).await.unwrap();
}

#[tokio::test]
async fn it_stops_in_order_and_sends_what_is_left_in_the_outbox() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    // The relay looks by itself only once in ten minutes, and nobody wakes it.
    let instance = world.start(&vhost, &["--outbox-period-ms", "600000"]).await;
    let id = world.place(&[(1, 1)]).await;
    instance.stop().await;
    assert_eq!(inventory.event().await["order_id"], id);
    assert_eq!(world.count("outbox").await, 0);
}

/// They stay open, and nothing comes back on them, as after a failover of a virtual address.
#[tokio::test]
async fn it_stops_in_order_when_its_connections_to_the_database_have_gone_silent() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let url = world.database.url();
    let proxy = Proxy::start_for(url).unwrap();
    let inventory_url = Listing::of(1..=250).serve().await;
    let periods = [
        ["--payment-period-ms", "5"],
        ["--reask-period-ms", "5"],
        ["--catalogue-fill-period-seconds", "1"],
        // The relay looks only when it leaves.
        ["--outbox-period-ms", "600000"],
        ["--inventory-url", &inventory_url],
    ];
    let instance = Instance::start(&proxy.in_front_of(url), vhost.amqp_url(), periods.as_flattened()).await;
    eventually("the instance listens", async || instance.listens().await).await;
    eventually("it works", async || instance.health().await["dependencies"]["catalogue"]["status"] == "up").await;
    proxy.silence_established();
    // Long enough for each task to be in the middle of a step.
    tokio::time::sleep(Duration::from_millis(500)).await;
    instance.stop().await;
}
