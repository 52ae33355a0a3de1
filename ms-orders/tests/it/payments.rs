//! How orders are paid, and paid back.

use std::slice;

use database::WORK_TIMEOUT;
use dev::testing::Vhost;
use events::inventory::ReleaseCause;
use messaging::Fault;
use ms_orders::config::Shop;
use ms_orders::order::{self, What};
use ms_orders::payment::{self, Attempt, Key, Provider};
use ms_orders::scan::Scan;
use ms_orders::status::{Happening, Status};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::inventory::Inventory;
use crate::outcomes::{order_id, what};
use crate::statements::Statements;
use crate::world::{Instance, World, eventually, shop};

const SOON: &[&str] = &["--payment-delay-seconds", "0", "--payment-period-ms", "20"];

/// Places an order that is to be paid with this; its id.
async fn place(instance: &Instance, reference: &str) -> String {
    let items = json!([{"productId": "1", "quantity": 2}]);
    let order = instance.create(json!({"items": items, "paymentReference": reference})).await;
    order["id"].as_str().unwrap().to_owned()
}

fn causes(order: &Value) -> Vec<&str> {
    order["timeline"].as_array().unwrap().iter().map(|step| step["cause"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_confirmed_order_is_paid_once_and_completed() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let id = place(&instance, "card").await;
    assert_eq!(inventory.event().await["event"], "OrderCreated");
    assert_eq!(instance.order(&id).await["payment"], Value::Null);
    inventory.reserve(&id).await;

    let paid = instance.order_once(&id, "COMPLETED").await;
    assert_eq!(causes(&paid), ["createOrder", "StockReserved", "paid"]);
    let payment = json!({"status": "PAID", "amount": "24.00", "attempts": 1, "nextAttemptAt": null});
    assert_eq!(paid["payment"], payment);
    let told = inventory.event_delivery().await;
    let items = json!([{"product_id": 1, "quantity": 2}]);
    let event: Value = serde_json::from_slice(&told.data).unwrap();
    assert_eq!(event, json!({"event": "OrderCompleted", "order_id": id, "items": items}));
    assert_eq!(told.routing_key.as_str(), "order.completed");
    let message_id = told.properties.message_id().as_ref().unwrap().to_string();
    assert_eq!(paid["timeline"][2]["messageId"], message_id);
    assert_eq!(world.charged(&id).await, "24.00");
    instance.stop().await;
}

#[tokio::test]
async fn a_declined_payment_cancels_the_order_and_releases_its_stock() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let id = place(&instance, "decline-me").await;
    assert_eq!(inventory.event().await["event"], "OrderCreated");
    inventory.reserve(&id).await;
    let cancelled = instance.order_once(&id, "CANCELLED").await;
    assert_eq!(causes(&cancelled), ["createOrder", "StockReserved", "declined"]);
    assert_eq!(
        (&cancelled["reason"], &cancelled["payment"]["status"]),
        (&json!("The payment was declined"), &json!("DECLINED"))
    );
    let expected = json!({"event": "OrderCancelled", "order_id": id, "reason": "The payment was declined"});
    assert_eq!(inventory.event().await, expected);
    assert_eq!(world.charged(&id).await, "0.00");
    instance.stop().await;
}

/// The first request fails, the second is carried out and its answer lost, and so is each first request to give back.
#[tokio::test]
async fn a_flaky_provider_is_asked_again_under_the_same_key_and_charges_once() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let id = place(&instance, "flaky").await;
    inventory.reserve(&id).await;
    let paid = instance.order_once(&id, "COMPLETED").await;
    assert_eq!(paid["payment"]["attempts"], 3);
    assert_eq!(world.charged(&id).await, "24.00");
    inventory.sell(&id).await;

    inventory.reject(&id).await;
    eventually("it is paid back", async || instance.order(&id).await["payment"]["status"] == "RETURNED").await;
    assert_eq!(instance.order(&id).await["payment"]["attempts"], 2);
    assert_eq!(world.charged(&id).await, "0.00");
    instance.stop().await;
}

#[tokio::test]
async fn a_slow_payment_holds_up_nobody_else() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let slow = place(&instance, "slow").await;
    inventory.reserve(&slow).await;
    eventually("it was tried", async || instance.order(&slow).await["payment"]["attempts"].as_i64() > Some(0)).await;
    let quick = place(&instance, "card").await;
    inventory.reserve(&quick).await;
    instance.order_once(&quick, "COMPLETED").await;
    assert_eq!(instance.order(&slow).await["status"], "CONFIRMED");
    instance.order_once(&slow, "COMPLETED").await;
    instance.stop().await;
}

/// A payment whose answer is still to come, four times: a person cancels the order, its hold ends, and inventory has nothing
/// for it.
#[tokio::test]
async fn an_order_cancelled_while_its_payment_is_on_its_way_is_paid_back() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(place(&instance, "slow").await);
    }
    for id in &ids {
        inventory.reserve(id).await;
    }
    for id in &ids {
        eventually("the provider has taken it", async || world.charged(id).await == "24.00").await;
        assert_eq!(instance.order(id).await["status"], "CONFIRMED");
    }
    let [by_hand, by_expiry, rejected, refunded] = ids.as_slice() else { unreachable!() };
    let cancel = "mutation($id: ID!) { cancelOrder(id: $id, reason: \"changed my mind\") { status } }";
    assert_eq!(instance.ask(cancel, json!({"id": by_hand})).await["status"], "CANCELLED");
    inventory.release(by_expiry, "expired").await;
    inventory.reject(rejected).await;
    inventory.release(refunded, "refunded").await;
    for id in &ids {
        eventually("it is paid back", async || instance.order(id).await["payment"]["status"] == "RETURNED").await;
        assert_eq!(instance.order(id).await["status"], "CANCELLED");
        assert_eq!(world.charged(id).await, "0.00");
    }
    let returns: Vec<i32> =
        sqlx::query_scalar("select returns from provider_charges").fetch_all(&world.pool).await.unwrap();
    assert_eq!(returns, [1; 4]);
    instance.stop().await;
}

/// An instance has taken the payment, and the order ends before the provider hears of it, or just after.
#[tokio::test]
async fn a_charge_that_meets_the_end_of_its_order_is_not_made_or_is_given_back() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let (shop, provider) = (shop(), Provider::new(world.connections.clone()));
    for happening in [Happening::Rejected, Happening::Released(ReleaseCause::Refunded)] {
        for charged_first in [false, true] {
            let id = world.place(&[(1, 2)]).await;
            world.confirm(&id, &shop).await;
            sqlx::query(
                "update payments set attempts = 1, next_attempt_at = now() + interval '1 hour' where order_id = $1",
            )
            .bind(&id)
            .execute(&world.pool)
            .await
            .unwrap();
            let charge = [Key { order_id: id.clone(), amount: 24.into(), reference: String::new() }];
            let end = async || {
                world.happens(&order_id(&id), what(&id, happening), &shop).await;
                assert_eq!(payment::step(&world.connections, &provider, &shop, &Scan::default()).await.unwrap(), 1);
            };
            // The news of the charge comes last, whether it was made or not.
            let news = if charged_first {
                assert_eq!(provider.charge(&charge).await.unwrap(), [(id.clone(), Attempt::Paid)]);
                end().await;
                What::Paid
            } else {
                end().await;
                assert_eq!(provider.charge(&charge).await.unwrap(), [(id.clone(), Attempt::Declined)]);
                What::Declined
            };
            world.happens(&order_id(&id), news, &shop).await;
            let mut conn = world.pool.acquire().await.unwrap();
            let payment = payment::of(&mut conn, slice::from_ref(&id)).await.unwrap().remove(0);
            let order = order::find(&mut conn, &id).await.unwrap().unwrap();
            assert_eq!((order.status, payment.status), (Status::Cancelled, payment::Status::Returned), "{happening:?}");
            assert_eq!(world.charged(&id).await, "0.00", "{happening:?}");
            assert_eq!(
                payment::step(&world.connections, &provider, &shop, &Scan::default()).await.unwrap(),
                0,
                "nothing is left to do"
            );
        }
    }
}

/// Its time was up before inventory heard of the payment.
#[tokio::test]
async fn an_order_paid_too_late_for_its_stock_is_refunded_by_itself() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let id = place(&instance, "card").await;
    inventory.reserve(&id).await;
    instance.order_once(&id, "COMPLETED").await;
    inventory.release(&id, "expired").await;
    for _ in 0..2 {
        inventory.reject(&id).await;
    }
    let refunded = instance.order_once(&id, "REFUNDED").await;
    assert_eq!(causes(&refunded), ["createOrder", "StockReserved", "paid", "StockRejected"]);
    assert_eq!(refunded["reason"], "Insufficient stock");
    eventually("it is paid back", async || instance.order(&id).await["payment"]["status"] == "RETURNED").await;
    assert_eq!(world.charged(&id).await, "0.00");
    let returns: i32 = sqlx::query_scalar("select returns from provider_charges").fetch_one(&world.pool).await.unwrap();
    assert_eq!(returns, 1);
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(inventory.event().await["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, ["OrderCreated", "OrderCompleted", "OrderRefunded"]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_instances_charge_nobody_twice_and_a_restart_forgets_nothing() {
    const ORDERS: usize = 60;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let late = ["--payment-delay-seconds", "2", "--payment-period-ms", "20"];
    let first = world.start(&vhost, &late).await;
    for n in 0..ORDERS {
        let id = place(&first, if n % 3 == 0 { "flaky" } else { "card" }).await;
        inventory.reserve(&id).await;
    }
    eventually("all are confirmed", async || world.count("payments").await == ORDERS as i64).await;
    first.kill().await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(world.start(&vhost, &late).await);
    }
    eventually("all are paid", async || {
        let paid = "select count(*) from orders where status = 'completed'";
        sqlx::query_scalar::<_, i64>(paid).fetch_one(&world.pool).await.unwrap() == ORDERS as i64
    })
    .await;
    let charged: (i64, String) =
        sqlx::query_as("select count(*), sum(amount)::text from provider_charges where state = 'charged'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(charged, (ORDERS as i64, format!("{}.00", 24 * ORDERS)));
    let steps = "select count(*) from order_steps where cause = 'paid'";
    assert_eq!(sqlx::query_scalar::<_, i64>(steps).fetch_one(&world.pool).await.unwrap(), ORDERS as i64);
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test]
async fn payments_take_the_same_number_of_statements_however_many() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let shop = Shop { payment_delay_seconds: 0, ..shop() };
    let (provider, scan) = (Provider::new(world.connections.clone()), Scan::default());
    let statements = Statements::listen();
    let mut counts = Vec::new();
    for size in [1, 100] {
        for _ in 0..size {
            let id = world.place(&[(1, 2)]).await;
            world.confirm(&id, &shop).await;
        }
        statements.heard();
        assert_eq!(payment::step(&world.connections, &provider, &shop, &scan).await.unwrap(), size);
        counts.push(statements.heard().len());
    }
    assert_eq!(counts[0], counts[1]);
    assert_eq!(payment::step(&world.connections, &provider, &shop, &scan).await.unwrap(), 0);
}

#[tokio::test]
async fn a_payment_that_is_given_back_before_it_is_made_is_never_made() {
    let world = World::new().await;
    let provider = Provider::new(world.connections.clone());
    let key = |order: &str| Key { order_id: order.into(), amount: 24.into(), reference: "card".into() };
    assert_eq!(provider.give_back(&[key("A")]).await.unwrap(), ["A"]);
    let both = provider.charge(&[key("A"), key("B")]).await.unwrap();
    assert_eq!(both, [("A".to_owned(), Attempt::Declined), ("B".to_owned(), Attempt::Paid)]);
    assert_eq!((world.charged("A").await, world.charged("B").await), ("0.00".into(), "24.00".into()));
    assert_eq!(provider.give_back(&[key("B")]).await.unwrap(), ["B"]);
    assert_eq!(provider.charge(&[key("B")]).await.unwrap(), [("B".to_owned(), Attempt::Declined)]);
    assert_eq!(world.charged("B").await, "0.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_due_payment_is_taken_by_one_of_those_who_look() {
    const ORDERS: usize = 80;
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let shop = Shop { payment_delay_seconds: 0, ..shop() };
    for _ in 0..ORDERS {
        let id = world.place(&[(1, 2)]).await;
        world.confirm(&id, &shop).await;
    }
    let provider = Provider::new(world.connections.clone());
    let scans: [Scan; 6] = Default::default();
    let step = |scan| payment::step(&world.connections, &provider, &shop, scan);
    let steps = futures::future::join_all(scans.iter().map(step)).await;
    assert_eq!(steps.into_iter().map(Result::unwrap).sum::<usize>(), ORDERS);
    let asked = "select count(*) from provider_charges where requests = 1";
    assert_eq!(sqlx::query_scalar::<_, i64>(asked).fetch_one(&world.pool).await.unwrap(), ORDERS as i64);
}

/// Somebody has left a transaction open in psql. More orders are locked than a step has time to wait for.
#[tokio::test]
async fn orders_that_stay_locked_keep_no_other_from_being_paid_or_paid_back() {
    const LOCKED: usize = 5;
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let shop = Shop { payment_delay_seconds: 0, ..shop() };
    let mut ids = Vec::new();
    for _ in 0..LOCKED + 4 {
        let id = world.place(&[(1, 2)]).await;
        world.confirm(&id, &shop).await;
        ids.push(id);
    }
    let [locked @ .., _, _, _, refunded] = ids.as_slice() else { panic!("{ids:?}") };
    sqlx::query("update payments set status = 'returning' where order_id = $1")
        .bind(refunded)
        .execute(&world.pool)
        .await
        .unwrap();
    let mut left_open = world.pool.begin().await.unwrap();
    sqlx::query("select from orders where id = any($1) for update")
        .bind(locked)
        .execute(&mut *left_open)
        .await
        .unwrap();
    let (provider, scan) = (Provider::new(world.connections.clone()), Scan::default());
    let step = payment::step(&world.connections, &provider, &shop, &scan);
    let stepped = timeout(WORK_TIMEOUT, step).await.expect("a step of background work ends by itself");
    assert!(matches!(stepped, Err(Fault::Locked(_))), "{stepped:?}");
    let completed = "select count(*) from orders where status = 'completed'";
    assert_eq!(sqlx::query_scalar::<_, i64>(completed).fetch_one(&world.pool).await.unwrap(), 3);
    let returned = "select count(*) from payments where status = 'returned'";
    assert_eq!(sqlx::query_scalar::<_, i64>(returned).fetch_one(&world.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn health_tells_of_payments_that_fail() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let rename = async |from: &str, to: &str| {
        let statement = format!("alter table {from} rename to {to}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&world.pool).await.unwrap();
    };
    rename("provider_charges", "elsewhere").await;
    let id = place(&instance, "card").await;
    inventory.reserve(&id).await;
    let told = async || instance.health().await["dependencies"]["background-work"].to_string();
    eventually("health tells of it", async || told().await.contains("payments have failed for")).await;
    assert!(instance.is_ready().await, "orders are taken all the same");
    rename("elsewhere", "provider_charges").await;
    instance.order_once(&id, "COMPLETED").await;
    instance.stop().await;
}
