//! Orders that somebody cancels or has refunded, and the keys of such requests.

use dev::testing::Vhost;
use futures::future::join_all;
use ms_orders::order::forget_requests;
use serde_json::{Value, json};

use crate::inventory::Inventory;
use crate::world::{Instance, World, eventually, shop};

const CANCEL: &str = "mutation($id: ID!, $reason: String!, $key: String) {
  cancelOrder(id: $id, reason: $reason, idempotencyKey: $key) { id status reason }
}";

const REFUND: &str = "mutation($id: ID!, $reason: String!, $restock: Boolean, $key: String) {
  refundOrder(id: $id, reason: $reason, restock: $restock, idempotencyKey: $key) { id status reason }
}";

const CREATE: &str = "mutation($input: CreateOrderInput!) { createOrder(input: $input) { id status total } }";

fn cancelling(id: &str, key: Option<&str>) -> Value {
    json!({"id": id, "reason": "changed my mind", "key": key})
}

async fn completed(world: &World, inventory: &Inventory, instance: &Instance) -> String {
    let id = world.place(&[(1, 2)]).await;
    inventory.reserve(&id).await;
    instance.order_once(&id, "COMPLETED").await;
    inventory.sell(&id).await;
    id
}

const SOON: &[&str] = &["--payment-delay-seconds", "0", "--payment-period-ms", "20"];

#[tokio::test]
async fn an_order_can_be_cancelled_until_it_is_paid() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let (pending, confirmed) = (world.place(&[(1, 2)]).await, world.place(&[(1, 2)]).await);
    inventory.reserve(&confirmed).await;
    instance.order_once(&confirmed, "CONFIRMED").await;
    for id in [&pending, &confirmed] {
        let cancelled = instance.ask(CANCEL, cancelling(id, None)).await;
        assert_eq!(cancelled, json!({"id": id, "status": "CANCELLED", "reason": "changed my mind"}));
        let last = instance.order(id).await["timeline"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["status"], &last["cause"]), (&json!("CANCELLED"), &json!("cancelOrder")));
    }
    assert_eq!(instance.order(&confirmed).await["payment"]["status"], "CANCELLED");
    let mut told = Vec::new();
    for _ in 0..4 {
        let event = inventory.event().await;
        told.push((event["event"].as_str().unwrap().to_owned(), event["order_id"].as_str().unwrap().to_owned()));
    }
    told.sort();
    let mut expected = Vec::new();
    for event in ["OrderCancelled", "OrderCreated"] {
        expected.extend([&pending, &confirmed].map(|id| (event.to_owned(), id.clone())));
    }
    expected.sort();
    assert_eq!(told, expected);

    // What inventory held meanwhile is given back.
    inventory.reserve(&pending).await;
    assert_eq!(inventory.event().await["event"], "OrderCancelled");
    instance.stop().await;
}

#[tokio::test]
async fn what_cannot_end_says_what_it_is_and_changes_nothing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let (paid, pending) = (completed(&world, &inventory, &instance).await, world.place(&[(1, 2)]).await);
    let refunding = |id: &str| json!({"id": id, "reason": "broken"});

    for (mutation, variables, code, message, status) in [
        (
            CANCEL,
            cancelling(&paid, None),
            "CONFLICT",
            format!("order {paid} is COMPLETED: it cannot be cancelled"),
            json!("COMPLETED"),
        ),
        (
            REFUND,
            refunding(&pending),
            "CONFLICT",
            format!("order {pending} is PENDING: it cannot be refunded"),
            json!("PENDING"),
        ),
        (CANCEL, cancelling("ORD-12345", None), "NOT_FOUND", "there is no order ORD-12345".into(), Value::Null),
        (REFUND, refunding(&"x".repeat(65)), "NOT_FOUND", format!("there is no order {}", "x".repeat(65)), Value::Null),
        (CANCEL, json!({"id": pending, "reason": " "}), "INVALID", "reason is empty: say why".into(), Value::Null),
        (CANCEL, json!({"id": pending, "reason": "x".repeat(501)}), "INVALID", String::new(), Value::Null),
        (CANCEL, json!({"id": pending, "reason": "a\0b"}), "INVALID", String::new(), Value::Null),
        (CANCEL, cancelling(&pending, Some("")), "INVALID", String::new(), Value::Null),
    ] {
        let refusal = instance.refusal(mutation, variables).await;
        assert_eq!(refusal["extensions"]["code"], code, "{refusal}");
        assert!(refusal["message"].as_str().unwrap().starts_with(&message), "{refusal}");
        assert_eq!(refusal["extensions"]["status"], status, "{refusal}");
    }
    assert_eq!(instance.order(&pending).await["status"], "PENDING");

    let refunded = instance.ask(REFUND, refunding(&paid)).await;
    assert_eq!(refunded, json!({"id": paid, "status": "REFUNDED", "reason": "broken"}));
    for (mutation, what) in [(REFUND, "refunded"), (CANCEL, "cancelled")] {
        let refusal = instance.refusal(mutation, refunding(&paid)).await;
        assert_eq!(refusal["message"], format!("order {paid} is REFUNDED: it cannot be {what}"));
    }
    eventually("it is paid back", async || world.charged(&paid).await == "0.00").await;
    instance.stop().await;
}

#[tokio::test]
async fn a_request_with_a_key_is_carried_out_once_and_answered_again_after_a_restart() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, SOON).await;
    let (paid, other) =
        (completed(&world, &inventory, &instance).await, completed(&world, &inventory, &instance).await);
    let refund = |id: &str, restock: bool| json!({"id": id, "reason": "broken", "restock": restock, "key": "K"});
    let requests = || join_all((0..8).map(|_| instance.ask(REFUND, refund(&paid, true))));
    let answers = requests().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    instance.stop().await;

    let instance = world.start(&vhost, SOON).await;
    assert_eq!(instance.ask(REFUND, refund(&paid, true)).await, answers[0]);
    for reused in [refund(&paid, false), refund(&other, true)] {
        let refusal = instance.refusal(REFUND, reused).await;
        assert_eq!(refusal["extensions"]["code"], "CONFLICT");
        assert_eq!(
            (&refusal["extensions"]["field"], &refusal["extensions"]["orderId"]),
            (&json!("idempotencyKey"), &json!(paid))
        );
    }
    assert_eq!(instance.order(&other).await["status"], "COMPLETED");
    let steps = "select count(*) from order_steps where status = 'refunded'";
    assert_eq!(sqlx::query_scalar::<_, i64>(steps).fetch_one(&world.pool).await.unwrap(), 1);

    // A day later the key may name another request.
    sqlx::query("update requests set created_at = now() - interval '25 hours'").execute(&world.pool).await.unwrap();
    assert_eq!(instance.ask(REFUND, refund(&other, true)).await["status"], "REFUNDED");
    instance.stop().await;
}

#[tokio::test]
async fn a_key_of_create_order_lives_a_day() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start_without_broker(&vhost, &[]).await;
    let input =
        |quantity: i64| json!({"input": {"items": [{"productId": "1", "quantity": quantity}], "idempotencyKey": "K"}});
    let first = instance.ask(CREATE, input(1)).await;
    assert_eq!(instance.ask(CREATE, input(1)).await, first);
    assert_eq!(instance.refusal(CREATE, input(2)).await["extensions"]["code"], "CONFLICT");
    sqlx::query("update orders set created_at = now() - interval '25 hours'").execute(&world.pool).await.unwrap();
    let second = instance.ask(CREATE, input(2)).await;
    assert_ne!(second["id"], first["id"]);
    assert_eq!(instance.ask(CREATE, input(2)).await, second);
    assert_eq!(shop().idempotency_ttl_hours, 24);
    instance.stop().await;
}

#[tokio::test]
async fn an_order_that_costs_something_else_than_was_shown_is_refused_with_the_new_quote() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let instance = world.start_without_broker(&vhost, &[]).await;
    let input = |total: &str, key: Option<&str>| {
        let items = json!([{"productId": "1", "quantity": 2}]);
        json!({"input": {"items": items, "expectedTotal": total, "idempotencyKey": key}})
    };
    let refusal = instance.refusal(CREATE, input("23.99", None)).await;
    assert_eq!(refusal["extensions"]["code"], "CONFLICT");
    assert_eq!(refusal["extensions"]["quote"], json!({"subtotal": "20.00", "fee": "4.00", "total": "24.00"}));
    assert_eq!(world.count("orders").await, 0);
    let placed = instance.ask(CREATE, input("24.00", Some("K"))).await;
    assert_eq!(placed["total"], "24.00");
    assert_eq!(instance.ask(CREATE, input("24", Some("K"))).await, placed);
    assert_eq!(instance.refusal(CREATE, input("25", Some("K"))).await["extensions"]["field"], "idempotencyKey");
    instance.stop().await;
}

#[tokio::test]
async fn old_requests_are_deleted_a_bounded_number_at_a_time() {
    let world = World::new().await;
    sqlx::query(
        "insert into requests (user_id, operation, idempotency_key, order_id, reason, restock, created_at)
         select gen_random_uuid(), 'cancelOrder', n::text, 'A', '', false,
             now() - make_interval(mins => 60 * 23 + 40 * least(n, 2)::int)
         from generate_series(0, 2500) as n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let count = "select count(*) from requests";
    for (expected, expected_more) in [(1_501, true), (501, true), (2, false)] {
        let mut tx = world.connections.begin().await.unwrap();
        let more = forget_requests(&mut tx, 24).await.unwrap();
        tx.commit().await.unwrap();
        let left: i64 = sqlx::query_scalar(count).fetch_one(&world.pool).await.unwrap();
        assert_eq!((left, more), (expected, expected_more));
    }
    let mut left: Vec<String> =
        sqlx::query_scalar("select idempotency_key from requests").fetch_all(&world.pool).await.unwrap();
    left.sort_unstable();
    assert_eq!(left, ["0", "1"], "those of the last 24 hours stay");
}
