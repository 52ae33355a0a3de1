//! Orders as they are placed.

use dev::testing::Vhost;
use futures::future::join_all;
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::inventory::Inventory;
use crate::world::{CREATE, World, changed, deleted, eventually};

fn two_of_one(key: &str) -> Value {
    json!({"items": [{"productId": "1", "quantity": 2}], "idempotencyKey": key})
}

#[tokio::test]
async fn an_order_is_answered_at_once_and_its_event_goes_out_once() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "59.90"), (2, "0.35")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;

    let items = json!([
        {"productId": "2", "quantity": 1},
        {"productId": "1", "quantity": 1},
        {"productId": "1", "quantity": 1},
    ]);
    let order = instance.create(json!({"items": items, "paymentReference": "card 1"})).await;
    let id = order["id"].as_str().unwrap();
    assert!(id.starts_with("ORD-") && id.len() == 30, "{id}");
    let expected = json!({
        "id": id, "status": "PENDING", "subtotal": "120.15", "fee": "24.03", "total": "144.18",
        "paymentReference": "card 1",
        "items": [
            {"productId": "1", "sku": "SKU-1", "name": "Thing 1", "quantity": 2, "unitPrice": "59.90", "total": "119.80"},
            {"productId": "2", "sku": "SKU-2", "name": "Thing 1", "quantity": 1, "unitPrice": "0.35", "total": "0.35"},
        ],
    });
    assert_eq!(order, expected);

    let delivery = inventory.event_delivery().await;
    let body = format!(
        r#"{{"event":"OrderCreated","order_id":"{id}","items":[{{"product_id":1,"quantity":2}},{{"product_id":2,"quantity":1}}]}}"#
    );
    assert_eq!(std::str::from_utf8(&delivery.data).unwrap(), body);
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("orders", "order.created"));
    let properties = &delivery.properties;
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "OrderCreated");
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), id);
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "ms-orders");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert!(properties.timestamp().is_some());
    let message_id = properties.message_id().as_ref().unwrap().as_str();
    assert_eq!(message_id.parse::<Uuid>().unwrap().get_version_num(), 7);

    let step = instance.order(id).await["timeline"][0].take();
    assert_eq!((&step["status"], &step["cause"]), (&json!("PENDING"), &json!("createOrder")));
    assert_eq!(step["messageId"], message_id);
    let headers = properties.headers().as_ref().unwrap();
    let Some(AMQPValue::LongString(trace)) = headers.inner().get("traceparent") else { panic!("{headers:?}") };
    assert!(std::str::from_utf8(trace.as_bytes()).unwrap().contains(step["traceId"].as_str().unwrap()));

    let next = instance.create(two_of_one("next")).await;
    assert_eq!(inventory.event().await["order_id"], next["id"], "the first order's event went out twice");
    instance.stop().await;
}

#[tokio::test]
async fn a_quote_is_what_is_charged_and_later_prices_change_no_order() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10.05"), (2, "3.33")]).await;
    let instance = world.start(&vhost, &["--fee-percent", "7.5"]).await;
    let items = json!([{"productId": "1", "quantity": 3}, {"productId": "2", "quantity": 7}]);
    let quote = "query($items: [ItemInput!]!) { quote(items: $items) {
        subtotal fee total items { productId sku name quantity unitPrice total }
    } }";
    let quoted = instance.ask(quote, json!({"items": items})).await;
    assert_eq!((&quoted["subtotal"], &quoted["fee"]), (&json!("53.46"), &json!("4.01")));
    let order = instance.create(json!({"items": items})).await;
    for field in ["subtotal", "fee", "total", "items"] {
        assert_eq!(order[field], quoted[field], "{field}");
    }

    let mut conn = world.pool.acquire().await.unwrap();
    ms_orders::catalogue::keep(&mut conn, [changed(1, 2, "99"), deleted(2, 2)]).await.unwrap();
    let later = instance.order(order["id"].as_str().unwrap()).await;
    assert_eq!(later["total"], order["total"]);
    assert_eq!(later["items"][1]["unitPrice"], "3.33");
}

#[tokio::test]
async fn orders_are_taken_while_the_broker_is_away_and_go_out_on_its_return() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    vhost.management().delete_vhost(vhost.name()).unwrap();
    let instance = world.start_without_broker(&vhost, &[]).await;
    let mut expected = Vec::new();
    for n in 0..10 {
        let order = instance.create(two_of_one(&n.to_string())).await;
        assert_eq!(order["status"], "PENDING");
        expected.push(order["id"].clone());
    }
    assert!(!instance.listens().await);

    restore(&vhost);
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    for id in expected {
        assert_eq!(inventory.event().await["order_id"], id);
    }
    eventually("the outbox is empty", async || world.count("outbox").await == 0).await;
}

/// Makes the vhost again, empty, and lets its user in.
fn restore(vhost: &Vhost) {
    let (_, login) = vhost.amqp_url().split_once("://").unwrap();
    let (user, rest) = login.split_once(':').unwrap();
    let (password, _) = rest.split_once('@').unwrap();
    vhost.management().create_vhost(vhost.name()).unwrap();
    vhost.management().create_user(user, password, vhost.name()).unwrap();
}

#[tokio::test]
async fn an_order_waits_in_the_outbox_until_somebody_listens() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start(&vhost, &[]).await;
    let order = instance.create(two_of_one("k")).await;
    let tried = "select exists (select from outbox where attempts > 0)";
    eventually("it was tried", async || sqlx::query_scalar(tried).fetch_one(&world.pool).await.unwrap()).await;

    let inventory = Inventory::connect(vhost.amqp_url()).await;
    assert_eq!(inventory.event().await["order_id"], order["id"]);
}

#[tokio::test]
async fn the_same_key_at_the_same_time_places_one_order() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instances = [world.start(&vhost, &[]).await, world.start(&vhost, &[]).await];
    let placed = join_all((0..20).map(|n| instances[n % 2].create(two_of_one("same")))).await;
    assert!(placed.iter().all(|order| *order == placed[0]), "{placed:?}");
    assert_eq!((world.count("orders").await, world.count("order_lines").await), (1, 1));
    assert_eq!(world.count("order_steps").await, 1);
    assert_eq!(inventory.event().await["order_id"], placed[0]["id"]);
    let other = instances[0].create(two_of_one("other")).await;
    assert_eq!(inventory.event().await["order_id"], other["id"], "the event went out more than once");
}

#[tokio::test]
async fn a_key_answers_with_its_order_and_refuses_another() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1"), (2, "2")]).await;
    let instance = world.start(&vhost, &[]).await;
    let input =
        |items: Value, reference: Value| json!({"items": items, "paymentReference": reference, "idempotencyKey": "k"});
    let line = |product: &str, quantity: i64| json!({"productId": product, "quantity": quantity});
    let first = instance.create(input(json!([line("1", 3), line("2", 1)]), json!("card"))).await;

    // The price is another, one product is gone, the lines stand in another order: it is the same request.
    let mut conn = world.pool.acquire().await.unwrap();
    ms_orders::catalogue::keep(&mut conn, [changed(1, 2, "9"), deleted(2, 2)]).await.unwrap();
    let again = input(json!([line("2", 1), line("1", 1), line("1", 2)]), json!("card"));
    assert_eq!(instance.create(again).await, first);

    for other in [
        input(json!([line("1", 3)]), json!("card")),
        input(json!([line("1", 2), line("2", 1)]), json!("card")),
        input(json!([line("1", 3), line("2", 1)]), json!("another card")),
        input(json!([line("1", 3), line("2", 1)]), Value::Null),
    ] {
        let refusal = instance.refusal(CREATE, json!({"input": other})).await;
        assert_eq!(refusal["extensions"]["code"], "CONFLICT", "{refusal}");
        assert_eq!(refusal["extensions"]["orderId"], first["id"]);
    }
    assert_eq!(world.count("orders").await, 1);
}

#[tokio::test]
async fn a_key_of_a_refused_order_is_free() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let instance = world.start(&vhost, &[]).await;
    let refusal = instance.refusal(CREATE, json!({"input": two_of_one("k")})).await;
    assert_eq!(refusal["extensions"]["code"], "NOT_FOUND");
    world.sell(&[(1, "1")]).await;
    assert_eq!(instance.create(two_of_one("k")).await["status"], "PENDING");
}
