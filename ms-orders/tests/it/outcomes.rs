//! What becomes of orders when inventory answers.

use dev::testing::Vhost;
use events::OrderId;
use events::inventory::{ReleaseCause, StockRejected, StockReserved};
use events::inventory::{StockEvent, StockReleased};
use messaging::Trace;
use ms_orders::order::{self, News, Outcome, What};
use ms_orders::payment;
use ms_orders::status::{Happening, Next, Status, next};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::inventory::{EXPIRES_AT, Inventory, rejected, released, reserved};
use crate::statements::Statements;
use crate::world::{ADMIN, World, shop};

fn statuses(order: &Value) -> Vec<&str> {
    order["timeline"].as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_reserved_order_is_confirmed_and_cancelled_when_its_time_runs_out() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    inventory.event().await;

    inventory.reserve(&id).await;
    let confirmed = instance.order_once(&id, "CONFIRMED").await;
    assert_eq!(confirmed["expiresAt"], EXPIRES_AT);
    assert_eq!((&confirmed["reason"], &confirmed["shortages"]), (&Value::Null, &json!([])));
    assert_eq!(confirmed["timeline"][1]["cause"], "StockReserved");

    inventory.release(&id, "expired").await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(cancelled["reason"], "The reservation expired");
    assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "CANCELLED"]);
    assert_eq!(cancelled["timeline"][2]["cause"], "expired");
    assert_eq!(cancelled["payment"]["status"], "CANCELLED");
    instance.stop().await;
}

#[tokio::test]
async fn a_rejected_order_is_cancelled_and_says_what_was_short() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;

    inventory.reject(&id).await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(cancelled["reason"], "Insufficient stock");
    assert_eq!(cancelled["shortages"], json!([{"productId": "1", "requested": 2, "available": 1}]));
    assert_eq!(cancelled["expiresAt"], Value::Null);
    assert_eq!(statuses(&cancelled), ["PENDING", "CANCELLED"]);
}

#[tokio::test]
async fn repeated_and_late_answers_change_nothing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let (held, refused) = (world.place(&[(1, 2)]).await, world.place(&[(1, 2)]).await);
    inventory.reserve(&held).await;
    inventory.reject(&refused).await;
    let confirmed = instance.order_once(&held, "CONFIRMED").await;
    let cancelled = instance.order_once(&refused, "CANCELLED").await;

    for _ in 0..2 {
        inventory.reserve(&held).await;
        inventory.sell(&held).await;
        inventory.reject(&refused).await;
        inventory.release(&refused, "cancelled").await;
    }
    // The queue keeps its order, so once this one is through, those before it are.
    let marker = world.place(&[(1, 2)]).await;
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "CONFIRMED").await;
    assert_eq!(instance.order(&held).await, confirmed);
    assert_eq!(instance.order(&refused).await, cancelled);
}

/// Inventory is asked for an order again, for instance because the broker delivers OrderCreated twice, and tells how it
/// stands by then. What it told before may come later.
#[tokio::test]
async fn answers_to_a_repeated_order_move_no_order_that_is_settled() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let [paid, returned] = [world.place(&[(1, 2)]).await, world.place(&[(1, 2)]).await];
    for id in [&paid, &returned] {
        world.confirm(id, &shop()).await;
        world.happens(&order_id(id), What::Paid, &shop()).await;
        inventory.sell(id).await;
    }
    world.happens(&order_id(&returned), what(&returned, Happening::Refunded), &shop()).await;
    inventory.release(&returned, "refunded").await;
    // By now both are answered, as far as `returned` can be before its payment is back.
    let marker = world.place(&[(1, 2)]).await;
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "CONFIRMED").await;
    let before = (instance.order(&paid).await, instance.order(&returned).await);
    assert_eq!((&before.0["status"], &before.1["status"]), (&json!("COMPLETED"), &json!("REFUNDED")));

    for id in [&paid, &returned] {
        inventory.sell(id).await;
        inventory.reserve(id).await;
        inventory.release(id, "expired").await;
        inventory.release(id, "cancelled").await;
        inventory.sell(id).await;
    }
    inventory.release(&returned, "refunded").await;
    let marker = world.place(&[(1, 2)]).await;
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "CONFIRMED").await;
    for (id, before) in [(&paid, &before.0), (&returned, &before.1)] {
        let after = instance.order(id).await;
        assert_eq!((&after["status"], &after["timeline"]), (&before["status"], &before["timeline"]));
    }
    let owed: i64 = sqlx::query_scalar("select count(*) from orders where overdue_at is not null and id = any($1)")
        .bind([&paid, &returned])
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(owed, 0, "inventory owes them nothing more");
    instance.stop().await;
}

/// Inventory says so of an order whose payment is due: it must not be charged for what it does not get.
#[tokio::test]
async fn a_confirmed_order_that_inventory_has_nothing_for_is_cancelled_and_not_charged() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let [rejected, returned] = [world.place(&[(1, 2)]).await, world.place(&[(1, 2)]).await];
    for id in [&rejected, &returned] {
        inventory.reserve(id).await;
        instance.order_once(id, "CONFIRMED").await;
    }
    inventory.reject(&rejected).await;
    inventory.release(&returned, "refunded").await;
    for (id, reason) in [(&rejected, "Insufficient stock"), (&returned, "The order was refunded")] {
        let cancelled = instance.order_once(id, "CANCELLED").await;
        assert_eq!(cancelled["reason"], reason);
        assert_eq!(cancelled["payment"]["status"], "CANCELLED");
        assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "CANCELLED"]);
    }
    instance.stop().await;
}

#[tokio::test]
async fn stock_that_is_held_for_a_cancelled_order_is_given_back() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["event"], "OrderCreated");
    inventory.reject(&id).await;
    inventory.reserve(&id).await;
    let delivery = inventory.event_delivery().await;
    let expected = format!(r#"{{"event":"OrderCancelled","order_id":"{id}","reason":"Insufficient stock"}}"#);
    assert_eq!(std::str::from_utf8(&delivery.data).unwrap(), expected);
    assert_eq!(delivery.routing_key.as_str(), "order.cancelled");

    // Once inventory has said that nothing is held, nothing is to be given back.
    inventory.release(&id, "cancelled").await;
    inventory.reserve(&id).await;
    let marker = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["order_id"], marker);
    inventory.reserve(&marker).await;
    instance.order_once(&marker, "CONFIRMED").await;
    assert_eq!(statuses(&instance.order(&id).await), ["PENDING", "CANCELLED"]);
}

#[tokio::test]
async fn a_release_that_overtakes_its_reservation_cancels_and_holds_nothing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let id = world.place(&[(1, 2)]).await;
    inventory.event().await;
    inventory.release(&id, "expired").await;
    inventory.reserve(&id).await;
    instance.order_once(&id, "CANCELLED").await;

    let marker = world.place(&[(1, 2)]).await;
    assert_eq!(inventory.event().await["order_id"], marker, "a release was asked for that had happened");
}

#[tokio::test]
async fn what_is_not_ours_is_ignored_and_what_is_no_answer_is_dead_lettered_with_its_reason() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    inventory.reserve("ORD-12345").await;
    inventory.reject(&"x".repeat(64)).await;
    inventory.release("🫖", "expired").await;

    let nested = format!(r#"{{"event":"StockReserved","order_id":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long_id = reserved(&"x".repeat(65)).to_string();
    let id = world.place(&[(1, 2)]).await;
    let nul = rejected(&id).to_string().replace("Insufficient", "In\\u0000sufficient");
    let wrong_cause = released(&id, "lost").to_string();
    for (body, why) in [
        (&b""[..], "EOF"),
        (b"hello", "expected value"),
        (b"{\"event\":\"StockReserved\"}", "missing field `order_id`"),
        (b"{\"event\":\"ProductChanged\",\"order_id\":\"A\"}", "unexpected event \"ProductChanged\""),
        (b"{\"event\":\"StockReserved\",\"order_id\":\"\xff\xfe\",\"items\":[]}", "unicode"),
        (b"{\"event\":\"StockReserved\",\"order_id\":\"\",\"items\":[]}", "order_id is empty"),
        (long_id.as_bytes(), "more than 64 characters"),
        (nested.as_bytes(), "invalid type: sequence"),
        (nul.as_bytes(), "reason contains NUL"),
        (wrong_cause.as_bytes(), "unknown variant `lost`"),
        (&vec![b' '; 2 * 1024 * 1024], "larger than 1048576 bytes"),
    ] {
        inventory.publish("stock.reserved", body).await;
        let (letter, reason) = inventory.dead_letter().await;
        assert_eq!(letter.data, body);
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(instance.order(&id).await["status"], "PENDING");
    let long_reason = rejected(&id).to_string().replace("stock", &"é".repeat(5_000));
    inventory.publish("stock.rejected", long_reason.as_bytes()).await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(cancelled["reason"].as_str().unwrap().chars().count(), 1_000);
}

pub(crate) fn order_id(id: &str) -> OrderId {
    OrderId::try_from(id.to_owned()).unwrap()
}

/// What happened to an order, with everything that belongs to it.
pub(crate) fn what(id: &str, happening: Happening) -> What {
    let order_id = order_id(id);
    let reserved = |order_id, expires_at| StockEvent::Reserved(StockReserved { order_id, items: vec![], expires_at });
    What::Stock(match happening {
        Happening::Reserved => reserved(order_id, Some(EXPIRES_AT.parse().unwrap())),
        Happening::Sold => reserved(order_id, None),
        Happening::Rejected => {
            StockEvent::Rejected(StockRejected { order_id, reason: "Insufficient stock".into(), shortages: vec![] })
        }
        Happening::Released(cause) => {
            StockEvent::Released(StockReleased { order_id, items: vec![], cause, written_off: vec![] })
        }
        Happening::Paid => return What::Paid,
        Happening::Declined => return What::Declined,
        Happening::Cancelled => return What::Cancelled { by: ADMIN, reason: "changed my mind".into() },
        Happening::Refunded => return What::Refunded { by: ADMIN, reason: "broken".into(), restock: true },
        Happening::Unanswered => return What::Unanswered,
    })
}

fn news(id: &str, happening: Happening) -> News {
    News { order_id: order_id(id), what: what(id, happening), message_id: None, trace: Trace::start() }
}

#[tokio::test]
async fn a_mixed_batch_leads_where_its_news_lead_one_by_one() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let happenings = prop::sample::select(vec![
        Happening::Reserved,
        Happening::Sold,
        Happening::Rejected,
        Happening::Released(ReleaseCause::Cancelled),
        Happening::Released(ReleaseCause::Expired),
        Happening::Released(ReleaseCause::Refunded),
        Happening::Paid,
        Happening::Declined,
        Happening::Cancelled,
        Happening::Refunded,
        Happening::Unanswered,
    ]);
    // Order 6 is not ours.
    let batches = prop::collection::vec(prop::collection::vec((0..7_usize, happenings), 0..12), 1..6);
    let mut runner = TestRunner::default();
    for _ in 0..100 {
        let batches = batches.new_tree(&mut runner).unwrap().current();
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(world.place(&[(1, 2)]).await);
        }
        ids.push("ORD-12345".to_owned());
        let mut model = vec![(vec![Status::Pending], false); 6];
        for batch in &batches {
            let heard: Vec<_> = batch.iter().map(|(order, happening)| news(&ids[*order], *happening)).collect();
            let mut tx = world.pool.begin().await.unwrap();
            let outcomes = order::advance(&mut tx, &heard, shop().waits()).await.unwrap();
            tx.commit().await.unwrap();
            let gives_back: Vec<bool> =
                outcomes.iter().map(|outcome| matches!(outcome, Outcome::GiveBack(_))).collect();
            let expected: Vec<bool> = batch
                .iter()
                .map(|&(order, happening)| model.get_mut(order).is_some_and(|it| hear(it, happening)))
                .collect();
            assert_eq!(gives_back, expected, "{batches:?}");
        }
        let mut conn = world.pool.acquire().await.unwrap();
        let steps = order::steps(&mut conn, &ids).await.unwrap();
        let payments = payment::of(&mut conn, &ids).await.unwrap();
        for (id, (expected, _)) in ids.iter().zip(&model) {
            let taken: Vec<_> = steps.iter().filter(|step| step.order_id == *id).map(|step| step.status).collect();
            assert_eq!(taken, *expected, "{batches:?}");
            let order = order::find(&mut conn, id).await.unwrap().unwrap();
            assert_eq!(Some(&order.status), expected.last(), "{batches:?}");
            // Nobody has tried to charge, so what is not due or paid never was.
            let paid = payments.iter().find(|payment| payment.order_id == *id).map(|payment| payment.status);
            let may_be: &[Option<payment::Status>] = match order.status {
                Status::Pending => &[None],
                Status::Confirmed => &[Some(payment::Status::Due)],
                Status::Completed => &[Some(payment::Status::Paid), None],
                Status::Refunded => &[Some(payment::Status::Returning), None],
                Status::Cancelled => &[None, Some(payment::Status::Declined), Some(payment::Status::Cancelled)],
            };
            assert!(may_be.contains(&paid), "{:?} and {paid:?} after {batches:?}", order.status);
        }
    }
}

/// The same, one at a time: the statuses an order took and whether its stock was released. Tells whether stock is to be
/// given back.
fn hear((statuses, released): &mut (Vec<Status>, bool), happening: Happening) -> bool {
    *released |= matches!(happening, Happening::Released(_));
    match next(*statuses.last().unwrap(), happening) {
        Next::Become(status) => {
            statuses.push(status);
            false
        }
        Next::GiveBack => !*released,
        Next::Answered | Next::Nothing => false,
    }
}

#[tokio::test]
async fn a_batch_takes_the_same_number_of_statements_whatever_its_size() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let mut conn = world.pool.acquire().await.unwrap();
    let statements = Statements::listen();
    let mut counts = Vec::new();
    for size in [1, 200] {
        let mut ids = Vec::new();
        for _ in 0..size {
            ids.push(world.place(&[(1, 2)]).await);
        }
        for happening in [Happening::Reserved, Happening::Paid, Happening::Sold, Happening::Refunded] {
            let heard: Vec<_> = ids.iter().map(|id| news(id, happening)).collect();
            statements.heard();
            order::advance(&mut conn, &heard, shop().waits()).await.unwrap();
            counts.push(statements.heard().len());
        }
    }
    // Lock and write; of those that are paid the items and the event as well, of the refunded the event.
    assert_eq!(counts, [2, 4, 2, 3, 2, 4, 2, 3]);
}
