//! Whatever dies, no order and no answer is lost.

use std::time::Duration;

use dev::testing::Vhost;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::world::{World, eventually};

const ORDERS: i64 = 300;

/// Small batches, so that there are many to be hit; and orders that stay CONFIRMED, however slow the machine is.
const SMALL: &[&str] = &["--batch-max-messages", "10", "--prefetch-messages", "20", "--payment-delay-seconds", "3600"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_closed_again_and_again_lose_nothing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SMALL).await;
    let mut ids = Vec::new();
    for _ in 0..ORDERS {
        ids.push(world.place(&[(1, 2)]).await);
    }

    let done = CancellationToken::new();
    let closing = async {
        let mut closed = 0;
        while !done.is_cancelled() {
            if world.database.close_connections().is_ok() {
                closed += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        closed
    };
    let answering = async {
        for id in &ids {
            inventory.reserve(id).await;
            inventory.reserve(id).await;
        }
        let all = async || confirmed(&world).await == Some(ORDERS);
        eventually("all orders are confirmed", all).await;
        done.cancel();
    };
    let (closed, ()) = tokio::join!(closing, answering);
    assert!(closed > 2, "the connections were closed only {closed} times");
    eventually("all steps are there", async || {
        sqlx::query_scalar("select count(*) from order_steps").fetch_one(&world.pool).await.ok() == Some(2 * ORDERS)
    })
    .await;
    instance.stop().await;
}

/// `None` where the connection was closed at that moment.
async fn confirmed(world: &World) -> Option<i64> {
    let statement = "select count(*) from orders where status = 'confirmed'";
    sqlx::query_scalar(statement).fetch_one(&world.pool).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_its_work_to_the_next() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let mut instance = world.start(&vhost, SMALL).await;
    let mut ids = Vec::new();
    for n in 0..60 {
        let order = instance.create(json!({"items": [{"productId": "1", "quantity": 2}]})).await;
        ids.push(order["id"].as_str().unwrap().to_owned());
        if n % 20 == 10 {
            instance.kill().await;
            instance = world.start(&vhost, SMALL).await;
        }
    }
    // Every order is asked for at least once; one that was on its way during a kill may be asked for twice.
    let mut asked = std::collections::BTreeSet::new();
    while asked.len() < ids.len() {
        let event = inventory.event().await;
        assert_eq!(event["event"], "OrderCreated");
        let id = event["order_id"].as_str().unwrap().to_owned();
        inventory.reserve(&id).await;
        asked.insert(id);
        if asked.len() % 20 == 0 {
            instance.kill().await;
            instance = world.start(&vhost, SMALL).await;
        }
    }
    assert!(ids.iter().all(|id| asked.contains(id)));
    eventually("all are confirmed", async || confirmed(&world).await == Some(60)).await;
    assert_eq!(world.count("order_steps").await, 2 * 60);
    instance.stop().await;
}

#[tokio::test]
async fn a_session_that_breaks_is_begun_anew() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start(&vhost, &[]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    vhost.close_connections().unwrap();
    eventually("all connections are closed", async || !inventory.is_connected()).await;

    eventually("the session is back", async || instance.listens().await).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let id = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["order_id"], id);
    inventory.reserve(&id).await;
    instance.order_once(&id, "CONFIRMED").await;
    instance.stop().await;
}
