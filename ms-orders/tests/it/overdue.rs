//! Orders for which nothing happens for too long.

use std::time::Duration;

use chrono::{DateTime, Utc};
use dev::testing::Vhost;
use events::OrderId;
use messaging::outbox::Relay;
use ms_orders::config::Shop;
use ms_orders::order::What;
use ms_orders::overdue::{Step, step};
use ms_orders::scan::Scan;
use serde_json::json;

use crate::inventory::{Inventory, reserved};
use crate::statements::Statements;
use crate::world::{ADMIN, World, eventually, shop};

fn relay(world: &World) -> Relay {
    Relay::new(world.connections.clone(), Duration::from_secs(1))
}

/// Takes steps until nothing is overdue, and tells about how many orders inventory was asked.
async fn ask(world: &World, scan: &Scan) -> usize {
    let mut asked = 0;
    loop {
        let step = step(&world.connections, &relay(world), &shop(), scan).await.unwrap();
        asked += step.asked;
        if !step.is_full {
            return asked;
        }
    }
}

/// As if the broker had taken all events and lost them, and the pauses were over.
async fn lose_events(world: &World) {
    sqlx::query("delete from outbox").execute(&world.pool).await.unwrap();
    let_pauses_pass(world).await;
}

async fn let_pauses_pass(world: &World) {
    sqlx::query("update orders set overdue_at = now() where overdue_at is not null")
        .execute(&world.pool)
        .await
        .unwrap();
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
    assert_eq!(ask(&world, &Scan::default()).await, 0);
    instance.stop().await;
}

/// Inventory held its stock and nobody heard of it; by the time it is asked again, the hold has run out.
#[tokio::test]
async fn an_order_that_is_asked_for_again_after_its_hold_has_ended_is_cancelled() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    let asked = inventory.event().await;
    let_pauses_pass(&world).await;
    assert_eq!(inventory.event().await, asked);

    // To the question and by inventory's outbox; the answer to the first question was delayed until now.
    inventory.release(&id, "expired").await;
    inventory.release(&id, "expired").await;
    inventory.reserve(&id).await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(cancelled["reason"], "The reservation expired");
    assert_eq!(cancelled["payment"], serde_json::Value::Null);

    let marker = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["order_id"], marker, "a release was asked for that had happened");
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "CONFIRMED").await;
    assert_eq!(instance.order(&id).await, cancelled);
    instance.stop().await;
}

/// The broker lost what inventory said of the end of the hold.
#[tokio::test]
async fn inventory_is_asked_about_a_hold_whose_end_it_has_not_told() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    let created = inventory.event().await;
    assert_eq!(created["event"], "OrderCreated");
    inventory.reserve(&id).await;
    instance.order_once(&id, "CONFIRMED").await;
    let_pauses_pass(&world).await;
    assert_eq!(inventory.event().await, created, "how does it stand?");
    inventory.release(&id, "expired").await;

    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(
        (&cancelled["reason"], &cancelled["timeline"][2]["cause"]),
        (&json!("The reservation expired"), &json!("expired"))
    );
    assert_eq!(cancelled["payment"]["status"], "CANCELLED");
    instance.stop().await;
}

/// Its clock is ten minutes behind ours: by ours, the hold had ended before it began.
#[tokio::test]
async fn an_order_is_not_cancelled_because_inventory_has_another_clock() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &["--reask-after-seconds", "1", "--reask-period-ms", "50"]).await;
    let id = world.place(&[(1, 2)]).await;
    inventory.event().await;
    let mut held = reserved(&id);
    let ended = "select now() - interval '10 minutes'";
    held["expires_at"] = json!(sqlx::query_scalar::<_, DateTime<Utc>>(ended).fetch_one(&world.pool).await.unwrap());
    for _ in 0..3 {
        inventory.publish("stock.reserved", held.to_string().as_bytes()).await;
        assert_eq!(inventory.event().await["event"], "OrderCreated", "how does it stand?");
        assert_eq!(instance.order(&id).await["status"], "CONFIRMED", "it is held");
    }
    sqlx::query("update payments set next_attempt_at = now()").execute(&world.pool).await.unwrap();
    instance.order_once(&id, "COMPLETED").await;
    instance.stop().await;
}

/// Ten minutes ahead: by ours, the hold lasts, and inventory says that it has ended.
#[tokio::test]
async fn a_hold_ends_when_inventory_says_so_whatever_our_clock_says() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    inventory.reserve(&id).await;
    instance.order_once(&id, "CONFIRMED").await;
    inventory.release(&id, "expired").await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(cancelled["payment"]["status"], "CANCELLED");
    instance.stop().await;
}

/// As if this had happened so long ago, and inventory had been asked all the time.
async fn let_hours_pass(world: &World, hours: i32) {
    sqlx::query("update orders set updated_at = updated_at - make_interval(hours => $1), overdue_at = now(), asks = 5")
        .bind(hours)
        .execute(&world.pool)
        .await
        .unwrap();
}

/// Its OrderCreated is in inventory's dead-letter queue, for example; a person may replay it later.
#[tokio::test]
async fn an_order_that_is_never_answered_is_given_up_and_a_late_reservation_is_given_back() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let soon = ["--payment-delay-seconds", "0", "--payment-period-ms", "20", "--reask-period-ms", "50"];
    let instance = world.start(&vhost, &soon).await;
    let id = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["event"], "OrderCreated");
    eventually("it has left", async || world.count("outbox").await == 0).await;
    let_hours_pass(&world, 71).await;
    assert_eq!(inventory.event().await["event"], "OrderCreated", "it is asked");
    assert_eq!(instance.order(&id).await["status"], "PENDING");
    let_hours_pass(&world, 2).await;

    let given_up = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(
        (&given_up["reason"], &given_up["timeline"][1]["cause"]),
        (&json!("Inventory did not answer in time"), &json!("unanswered"))
    );
    let explained = given_up["explain"].as_str().unwrap();
    assert!(explained.ends_with(": Inventory did not answer in time; nothing was paid."), "{explained}");
    let cancelled = json!({"event": "OrderCancelled", "order_id": id, "reason": "Inventory did not answer in time"});
    assert_eq!(inventory.event().await, cancelled);

    inventory.reserve(&id).await;
    assert_eq!(inventory.event().await, cancelled, "what is held is given back");
    inventory.release(&id, "cancelled").await;
    // It comes after the release, and is answered after it.
    let marker = world.place(&[(1, 2)]).await;
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "COMPLETED").await;
    assert_eq!(instance.order(&id).await["status"], "CANCELLED");
    assert_eq!(instance.order(&id).await["payment"], json!(null));
    assert_eq!(world.charged(&id).await, "0.00");
    let waiting = "select count(*) from orders where id = $1 and (overdue_at is not null or not stock_released)";
    assert_eq!(sqlx::query_scalar::<_, i64>(waiting).bind(&id).fetch_one(&world.pool).await.unwrap(), 0);
    instance.stop().await;
}

/// The broker lost the event, or the answer to it.
#[tokio::test]
async fn inventory_is_asked_again_for_paid_and_refunded_orders_until_it_has_answered() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &["--reask-after-seconds", "1", "--reask-period-ms", "50"]).await;
    let id = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["event"], "OrderCreated");
    inventory.reserve(&id).await;
    instance.order_once(&id, "CONFIRMED").await;
    happens(&world, &id, What::Paid).await;
    for _ in 0..2 {
        let asked = inventory.event().await;
        assert_eq!(
            (&asked["event"], &asked["items"]),
            (&json!("OrderCompleted"), &json!([{"product_id": 1, "quantity": 2}]))
        );
    }
    assert!(instance.order(&id).await["explain"].as_str().unwrap().starts_with("Paid; waits since"));
    inventory.sell(&id).await;
    eventually("nothing is outstanding", async || {
        instance.order(&id).await["explain"].as_str().unwrap().ends_with("and sold; nothing is outstanding.")
    })
    .await;
    assert_eq!(ask(&world, &Scan::default()).await, 0);

    happens(&world, &id, What::Refunded { by: ADMIN, reason: "broken".into(), restock: true }).await;
    eventually("it is asked twice", async || inventory.event().await["event"] == "OrderRefunded").await;
    let again = inventory.event().await;
    assert_eq!(again, json!({"event": "OrderRefunded", "order_id": id, "reason": "broken", "restock": true}));
    inventory.release(&id, "refunded").await;
    eventually("it is answered", async || {
        instance.order(&id).await["explain"].as_str().unwrap().starts_with("Refunded on")
    })
    .await;
    instance.stop().await;
}

/// This service was down for days, and the answers may be in its queue.
#[tokio::test]
async fn no_order_is_given_up_before_it_was_asked_for_a_few_times() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    world.place(&[(1, 1)]).await;
    let_hours_pass(&world, 100).await;
    sqlx::query("update orders set asks = 0").execute(&world.pool).await.unwrap();
    let mut steps = Vec::new();
    for _ in 0..6 {
        lose_events(&world).await;
        let Step { asked, given_up, .. } =
            step(&world.connections, &relay(&world), &shop(), &Scan::default()).await.unwrap();
        steps.push((asked, given_up));
    }
    assert_eq!(steps, [(1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (0, 1)]);
}

/// Its goods stay away, and inventory has not said yet that it sold them: it may not have heard of the payment.
#[tokio::test]
async fn a_refund_without_its_goods_still_has_inventory_sell_them() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    inventory.reserve(&id).await;
    instance.order_once(&id, "CONFIRMED").await;
    happens(&world, &id, What::Paid).await;
    happens(&world, &id, What::Refunded { by: ADMIN, reason: "broken".into(), restock: false }).await;
    instance.order_once(&id, "REFUNDED").await;
    lose_events(&world).await;
    eventually("it is asked again", async || inventory.event().await["event"] == "OrderCompleted").await;
    inventory.sell(&id).await;
    eventually("it is answered", async || {
        let overdue = "select count(*) from orders where overdue_at is not null";
        sqlx::query_scalar::<_, i64>(overdue).fetch_one(&world.pool).await.unwrap() == 0
    })
    .await;
    instance.stop().await;
}

async fn happens(world: &World, id: &str, what: What) {
    let soon = Shop { reask_after_seconds: 1, ..shop() };
    world.happens(&OrderId::try_from(id.to_owned()).unwrap(), what, &soon).await;
}

#[tokio::test]
async fn what_is_outstanding_too_long_is_listed_as_stuck() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start_without_broker(&vhost, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.place(&[(1, 2)]).await);
    }
    happens(&world, &ids[1], What::Cancelled { by: ADMIN, reason: "changed my mind".into() }).await;
    sqlx::query("update orders set updated_at = now() - interval '1 hour' where id <> $1")
        .bind(&ids[3])
        .execute(&world.pool)
        .await
        .unwrap();
    let stuck = "query($seconds: Int!) { stuckOrders(olderThanSeconds: $seconds) { id explain } }";
    let listed = instance.ask(stuck, json!({"seconds": 1800})).await;
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect();
    assert_eq!(listed, [&ids[0], &ids[2]]);
    let refused = instance.refusal(stuck, json!({"seconds": -1})).await;
    assert_eq!(refused["extensions"]["code"], "INVALID");
}

#[tokio::test]
async fn each_pause_is_twice_as_long_up_to_a_day() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    world.place(&[(1, 1)]).await;
    let mut pauses = Vec::new();
    for _ in 0..13 {
        lose_events(&world).await;
        assert_eq!(ask(&world, &Scan::default()).await, 1);
        let pause = "select extract(epoch from overdue_at - now())::float8 from orders";
        let seconds: f64 = sqlx::query_scalar(pause).fetch_one(&world.pool).await.unwrap();
        pauses.push(seconds.ceil() as i64);
    }
    // Some of the pause may have passed before it was read.
    let expected = (1..=11).map(|n| 30 * 2_i64.pow(n)).chain([86_400, 86_400]);
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!((expected - 20..=expected).contains(pause), "{pauses:?}");
    }
    // And it is given up when its time is over, not a day later.
    let_hours_pass(&world, 71).await;
    sqlx::query("update orders set asks = 13").execute(&world.pool).await.unwrap();
    assert_eq!(ask(&world, &Scan::default()).await, 0, "its question is in the outbox");
    let pause = "select extract(epoch from overdue_at - now())::float8 from orders";
    let seconds: f64 = sqlx::query_scalar(pause).fetch_one(&world.pool).await.unwrap();
    assert!(seconds <= 3_600.0, "{seconds}");
}

#[tokio::test]
async fn an_order_whose_question_has_not_left_yet_is_not_asked_for_again() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    world.place(&[(1, 1)]).await;
    let_pauses_pass(&world).await;
    assert_eq!(ask(&world, &Scan::default()).await, 0);
    assert_eq!(world.count("outbox").await, 1);
    lose_events(&world).await;
    assert_eq!(ask(&world, &Scan::default()).await, 1);
}

#[tokio::test]
async fn many_unanswered_orders_are_asked_for_once_by_several_instances() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    for _ in 0..600 {
        world.place(&[(1, 1)]).await;
    }
    lose_events(&world).await;
    let scans: [Scan; 3] = Default::default();
    let (a, b, c) = tokio::join!(ask(&world, &scans[0]), ask(&world, &scans[1]), ask(&world, &scans[2]));
    assert_eq!(a + b + c, 600);
    assert_eq!(world.count("outbox").await, 600);

    let statements = Statements::listen();
    let mut counts = Vec::new();
    for overdue in [1, 200_i64] {
        sqlx::query("delete from outbox").execute(&world.pool).await.unwrap();
        sqlx::query("update orders set overdue_at = now() where id in (select id from orders limit $1)")
            .bind(overdue)
            .execute(&world.pool)
            .await
            .unwrap();
        statements.heard();
        assert_eq!(ask(&world, &Scan::default()).await as i64, overdue);
        counts.push(statements.heard().len());
    }
    assert_eq!(counts[0], counts[1]);
}
