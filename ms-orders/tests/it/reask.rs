//! Orders that inventory leaves unanswered.

use std::time::Duration;

use dev::testing::Vhost;
use messaging::outbox::Relay;
use ms_orders::reask::reask;
use serde_json::json;

use crate::inventory::Inventory;
use crate::statements::Statements;
use crate::world::World;

fn relay(world: &World) -> Relay {
    Relay::new(world.pool.clone(), Duration::from_secs(1))
}

/// As if the broker had taken all events and lost them, and the pauses were over.
async fn lose_events(world: &World) {
    sqlx::query("delete from outbox").execute(&world.pool).await.unwrap();
    let_pauses_pass(world).await;
}

async fn let_pauses_pass(world: &World) {
    sqlx::query("update orders set next_ask_at = now()").execute(&world.pool).await.unwrap();
}

#[tokio::test]
async fn an_unanswered_order_is_asked_for_again_until_it_is_answered() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1"), (2, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &["--reask-after-seconds", "1", "--reask-period-ms", "50"]).await;
    let items = json!([{"productId": "2", "quantity": 1}, {"productId": "1", "quantity": 2}]);
    let order = instance.create(json!({"items": items})).await;
    let first = inventory.event_delivery().await;
    let second = inventory.event_delivery().await;
    assert_eq!(first.data, second.data);
    assert_ne!(first.properties.message_id(), second.properties.message_id());

    let id = order["id"].as_str().unwrap();
    inventory.reserve(id).await;
    instance.order_once(id, "CONFIRMED").await;
    let_pauses_pass(&world).await;
    assert_eq!(reask(&world.pool, &relay(&world), 1).await.unwrap(), 0);
    instance.stop().await;
}

#[tokio::test]
async fn each_pause_is_twice_as_long_up_to_an_hour() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    world.place(&[(1, 1)]).await;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        lose_events(&world).await;
        assert_eq!(reask(&world.pool, &relay(&world), 30).await.unwrap(), 1);
        let pause = "select extract(epoch from next_ask_at - now())::float8 from orders";
        let seconds: f64 = sqlx::query_scalar(pause).fetch_one(&world.pool).await.unwrap();
        pauses.push(seconds.ceil() as i64);
    }
    // Some of the pause may have passed before it was read.
    for (pause, expected) in pauses.iter().zip([60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]) {
        assert!((expected - 20..=expected).contains(pause), "{pauses:?}");
    }
}

#[tokio::test]
async fn an_order_whose_question_has_not_left_yet_is_not_asked_for_again() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    world.place(&[(1, 1)]).await;
    let_pauses_pass(&world).await;
    assert_eq!(reask(&world.pool, &relay(&world), 30).await.unwrap(), 0);
    assert_eq!(world.count("outbox").await, 1);
    lose_events(&world).await;
    assert_eq!(reask(&world.pool, &relay(&world), 30).await.unwrap(), 1);
}

#[tokio::test]
async fn many_unanswered_orders_are_asked_for_once_by_several_instances() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    for _ in 0..600 {
        world.place(&[(1, 1)]).await;
    }
    lose_events(&world).await;
    let relay = relay(&world);
    let ask = || reask(&world.pool, &relay, 30);
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert_eq!(a.unwrap() + b.unwrap() + c.unwrap(), 600);
    assert_eq!(world.count("outbox").await, 600);

    let statements = Statements::listen();
    let mut counts = Vec::new();
    for overdue in [1, 200_i64] {
        sqlx::query("delete from outbox").execute(&world.pool).await.unwrap();
        sqlx::query("update orders set next_ask_at = now() where id in (select id from orders limit $1)")
            .bind(overdue)
            .execute(&world.pool)
            .await
            .unwrap();
        statements.heard();
        assert_eq!(reask(&world.pool, &relay, 30).await.unwrap() as i64, overdue);
        counts.push(statements.heard().len());
    }
    assert_eq!(counts[0], counts[1]);
}
