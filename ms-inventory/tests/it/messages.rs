//! What becomes of messages, as an order service sees it.

use std::collections::{BTreeMap, BTreeSet};

use dev::testing::Vhost;
use events::queues;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use messaging::dead_letters::{REASON_HEADER, Shelf};
use ms_inventory::stock::Level;
use serde_json::{Value, json};

use crate::client::{Client, created};
use crate::world::{World, eventually};

pub(crate) fn reason(delivery: &lapin::message::Delivery) -> String {
    let headers = delivery.properties.headers().as_ref().unwrap();
    match headers.inner().get(REASON_HEADER).unwrap() {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_order_is_reserved_rejected_and_released_by_the_contract() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(3).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;

    client.create("ORD-12345", &[(product, 2)]).await;
    let delivery = client.answer_delivery().await;
    let answer: Value = serde_json::from_slice(&delivery.data).unwrap();
    let items = json!([{"product_id": product, "quantity": 2}]);
    assert_eq!(answer["event"], "StockReserved");
    assert_eq!(answer["order_id"], "ORD-12345");
    assert_eq!(answer["items"], items);
    assert!(answer["expires_at"].as_str().unwrap().ends_with('Z'), "{answer}");
    let properties = &delivery.properties;
    assert_eq!(delivery.routing_key.as_str(), "stock.reserved");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "StockReserved");
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "ORD-12345");
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "ms-inventory");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert!(properties.timestamp().is_some());
    let message_id: uuid::Uuid = properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
    assert_eq!(message_id.get_version_num(), 7);

    client.create("ORD-2", &[(product, 2)]).await;
    let shortages = json!([{"product_id": product, "requested": 2, "available": 1}]);
    let rejected =
        json!({"event": "StockRejected", "order_id": "ORD-2", "reason": "Insufficient stock", "shortages": shortages});
    assert_eq!(client.answer().await, rejected);

    client.cancel("ORD-12345").await;
    let released = json!({"event": "StockReleased", "order_id": "ORD-12345", "items": items, "cause": "cancelled"});
    assert_eq!(client.answer().await, released);
    assert_eq!(world.level(product).await, Level { on_hand: 3, reserved: 0 });
    instance.stop().await;
}

#[tokio::test]
async fn an_answer_belongs_to_the_trace_of_its_order() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    let mut headers = FieldTable::default();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent".into(), AMQPValue::LongString(LongString::from(parent)));
    let properties = BasicProperties::default().with_headers(headers);
    client.publish_with("order.created", created("A", &[(1, 1)]).as_bytes(), properties).await;
    let delivery = client.answer_delivery().await;
    let headers = delivery.properties.headers().as_ref().unwrap();
    let Some(AMQPValue::LongString(child)) = headers.inner().get("traceparent") else { panic!("{headers:?}") };
    let child = String::from_utf8(child.as_bytes().to_vec()).unwrap();
    assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{child}");
    assert_ne!(child, parent);
}

#[tokio::test]
async fn hostile_messages_are_answered_or_dead_lettered_with_their_reason() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(10).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;

    let order = |items: &str| {
        format!(r#"{{"event":"OrderCreated","order_id":"BAD","items":{items}}}"#)
            .replace("BAD", &uuid::Uuid::now_v7().to_string())
    };
    let line = |quantity: &str| order(&format!(r#"[{{"product_id":{product},"quantity":{quantity}}}]"#));
    let many = format!("[{}]", vec![format!(r#"{{"product_id":{product},"quantity":1}}"#); 1_001].join(","));
    for (body, reason) in [
        (order("[]"), "No items"),
        (line("0"), "is not positive"),
        (line("-3"), "is not positive"),
        (line("1000001"), "is more than 1000000"),
        (line("99999999999999999999999999"), "is more than 1000000"),
        (order(&many), "More than 1000 lines"),
        (order(r#"[{"product_id":9223372036854775807,"quantity":1}]"#), "Unknown product 9223372036854775807"),
        (order(r#"[{"product_id":-1,"quantity":1}]"#), "Unknown product -1"),
        (line("11"), "Insufficient stock"),
    ] {
        client.publish("order.created", body.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer["event"], "StockRejected", "{body:.200}");
        assert!(answer["reason"].as_str().unwrap().contains(reason), "{body:.200}: {answer}");
    }

    let long_id = created(&"x".repeat(65), &[(product, 1)]);
    let nested = format!(r#"{{"event":"OrderCreated","order_id":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let huge = vec![b' '; 10 * 1024 * 1024];
    for (body, why) in [
        (&b""[..], "EOF"),
        (b"hello", "expected value"),
        (b"{\"event\":\"OrderCreated\"}", "missing field `order_id`"),
        (b"{\"event\":\"Nonsense\",\"order_id\":\"A\"}", "unexpected event \"Nonsense\""),
        (b"{\"event\":\"OrderCancelled\",\"order_id\":\"A\"}", "does not belong into this queue"),
        (b"{\"event\":\"OrderCreated\",\"order_id\":\"a\\u0000b\",\"items\":[]}", "contains NUL"),
        (b"{\"event\":\"OrderCreated\",\"order_id\":\"a\0b\",\"items\":[]}", "control character"),
        (b"{\"event\":\"OrderCreated\",\"order_id\":\"\xff\xfe\",\"items\":[]}", "unicode"),
        (
            b"{\"event\":\"OrderCreated\",\"order_id\":\"A\",\"items\":[{\"product_id\":\"1\",\"quantity\":1}]}",
            "invalid type",
        ),
        (long_id.as_bytes(), "more than 64 characters"),
        (nested.as_bytes(), "invalid type: sequence"),
        (&huge, "larger than 1048576 bytes"),
    ] {
        client.publish("order.created", body).await;
        let letter = client.dead_letter().await;
        assert_eq!(letter.data, body);
        let reason = reason(&letter);
        assert!(reason.contains(why), "{reason}");
    }
    client.publish("order.cancelled", b"{}").await;
    assert!(reason(&client.dead_letter().await).contains("missing field `event`"));

    client.create("LAST", &[(product, 10)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved", "the queue goes on");
    assert_eq!(client.depth("order.created.inventory.dead").await, 12);
    world.assert_adds_up().await;
    instance.stop().await;
}

#[tokio::test]
async fn an_order_id_of_64_four_byte_characters_is_answered() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    let id = "😀".repeat(64);
    client.create(&id, &[]).await;
    assert_eq!(client.answer().await["order_id"], id);
}

#[tokio::test]
async fn every_message_delivered_twice_changes_nothing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(30).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    let mut answers = BTreeMap::<String, BTreeSet<String>>::new();
    for _ in 0..2 {
        for n in 0..50 {
            client.create(&format!("ORD-{n}"), &[(product, 1)]).await;
        }
    }
    for _ in 0..100 {
        let answer = client.answer().await;
        answers.entry(answer["order_id"].to_string()).or_default().insert(answer.to_string());
    }
    assert_eq!(answers.len(), 50);
    assert!(answers.values().all(|told| told.len() == 1), "one answer each: {answers:?}");
    assert_eq!(world.level(product).await, Level { on_hand: 30, reserved: 30 });

    for _ in 0..2 {
        client.cancel("ORD-0").await;
        assert_eq!(client.answer().await["event"], "StockReleased");
    }
    assert_eq!(world.level(product).await, Level { on_hand: 30, reserved: 29 });
    client.assert_nothing_more_but("MARKER").await;
    world.assert_adds_up().await;
}

#[tokio::test]
async fn the_same_order_id_with_other_items_is_dead_lettered_as_a_conflict() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(30).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    client.create("A", &[(product, 1)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved");
    client.create("A", &[(product, 2)]).await;
    assert!(reason(&client.dead_letter().await).starts_with("conflict: order A"));
    assert_eq!(world.level(product).await.reserved, 1);
}

/// The last unit is never sold twice: 200 buyers, 100 units, four consumers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_oversell() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(100).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(world.start(&vhost, &["--batch-max-messages", "7", "--prefetch-messages", "20"]).await);
    }
    let buyers = (0..200).map(|n| (format!("BUYER-{n}"), [(product, 1)]));
    let buyers: Vec<_> = buyers.collect();
    futures::future::join_all(buyers.iter().map(|(id, items)| client.create(id, items))).await;
    let mut told = BTreeMap::<String, usize>::new();
    for _ in 0..200 {
        *told.entry(client.answer().await["event"].to_string()).or_default() += 1;
    }
    assert_eq!(told, BTreeMap::from([("\"StockRejected\"".into(), 100), ("\"StockReserved\"".into(), 100)]));
    assert_eq!(world.level(product).await, Level { on_hand: 100, reserved: 100 });
    assert_eq!(world.holds("held").await, 100);
    world.assert_adds_up().await;
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test]
async fn an_inventory_that_was_down_answers_everything_on_return() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(1_000).await;
    let client = Client::connect(vhost.amqp_url()).await;
    world.start(&vhost, &[]).await.stop().await;
    for n in 0..500 {
        client.create(&format!("ORD-{n}"), &[(product, 1)]).await;
    }
    assert_eq!(client.depth(queues::ORDER_CREATED).await, 500);
    let _instance = world.start(&vhost, &[]).await;
    for _ in 0..500 {
        assert_eq!(client.answer().await["event"], "StockReserved");
    }
    assert_eq!(world.level(product).await.reserved, 500);
}

#[tokio::test]
async fn a_hold_that_runs_out_is_swept_and_told() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(2).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &["--hold-ttl-seconds", "1", "--sweep-period-ms", "50"]).await;
    client.create("A", &[(product, 2)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved");
    let released = client.answer().await;
    assert_eq!((&released["event"], &released["cause"]), (&json!("StockReleased"), &json!("expired")));
    assert_eq!(world.level(product).await.reserved, 0);
    assert_eq!(world.holds("expired").await, 1);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_answer_nobody_listens_to_can_be_replayed_once_somebody_does() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(2).await;
    let instance = world.start(&vhost, &[]).await;
    let publisher = Client::connect(vhost.amqp_url()).await;
    let deaf = lapin::Connection::connect(vhost.amqp_url(), lapin::ConnectionProperties::default()).await.unwrap();
    publisher.connection.close(200, "bye".into()).await.unwrap();
    let channel = deaf.create_channel().await.unwrap();
    let body = created("A", &[(product, 2)]);
    let options = lapin::options::BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("orders".into(), "order.created".into(), options, body.as_bytes(), properties).await.unwrap();
    eventually("the unheard answer is dead-lettered", async || {
        let shelf = Shelf::open(&deaf, queues::ORDER_CREATED, 10).await.unwrap();
        shelf.letters().iter().any(|letter| letter.reason.contains("nobody listens to stock.reserved"))
    })
    .await;
    assert_eq!(world.level(product).await.reserved, 2);

    let client = Client::connect(vhost.amqp_url()).await;
    let replayed = Shelf::open(&deaf, queues::ORDER_CREATED, 10).await.unwrap().replay(|_| true).await.unwrap();
    assert_eq!(replayed, 1);
    let answer = client.answer().await;
    assert_eq!((&answer["event"], &answer["order_id"]), (&json!("StockReserved"), &json!("A")));
    assert_eq!(world.level(product).await.reserved, 2);
    instance.stop().await;
}

#[tokio::test]
async fn dead_letters_can_be_looked_at_replayed_and_purged() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    for body in ["one", "two", "three"] {
        client.publish("order.created", body.as_bytes()).await;
        client.dead_letter().await;
    }
    let open = async || Shelf::open(&client.connection, queues::ORDER_CREATED, 10).await.unwrap();
    let looks = std::cell::Cell::new(0);
    eventually("they were looked at more often than a work queue lets a message come back", async || {
        let shelf = open().await;
        let bodies: Vec<&[u8]> = shelf.letters().iter().map(|letter| &letter.delivery.data[..]).collect();
        if bodies.len() == 3 {
            assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
            looks.set(looks.get() + 1);
        }
        looks.get() > 25
    })
    .await;
    eventually("all three are back on the shelf", async || open().await.letters().len() == 3).await;
    assert_eq!(open().await.purge(|letter| letter.delivery.data == b"two").await.unwrap(), 1);
    eventually("two are left", async || open().await.letters().len() == 2).await;
    assert_eq!(open().await.replay(|letter| letter.delivery.data == b"one").await.unwrap(), 1);
    let again = client.dead_letter().await;
    assert_eq!(again.data, b"one", "what is still no event is dead-lettered again");
    eventually("and back on the shelf", async || open().await.letters().len() == 2).await;
}
