//! The programs beside the services, as a person uses them.

use events::queues;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::service::{becomes, eventually};
use crate::shop::{Shop, printed};

#[tokio::test]
async fn seed_data_again_changes_nothing() {
    let shop = Shop::closed(&[]);
    let first = shop.run("seed-data", &[]);
    assert!(first.status.success(), "{}", printed(&first));
    let pool = shop.inventory_pool().await;
    let all = "select jsonb_agg(to_jsonb(row) order by row)::text from (
        select products.*, on_hand, reserved, (select count(*) from movements), (select count(*) from outbox) as events
        from products join stock on product_id = id
    ) as row";
    let seeded: String = sqlx::query_scalar(all).fetch_one(&pool).await.unwrap();

    let second = shop.run("seed-data", &[]);
    assert!(second.status.success(), "{}", printed(&second));
    let list = |output: &std::process::Output| {
        let printed = printed(output);
        printed.lines().filter(|line| !line.ends_with("added")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(list(&first).len() > 10, "{}", printed(&first));
    assert_eq!(list(&first), list(&second));
    assert_eq!(sqlx::query_scalar::<_, String>(all).fetch_one(&pool).await.unwrap(), seeded);
}

#[tokio::test]
async fn the_doctor_names_the_product_that_does_not_add_up() {
    let shop = Shop::closed(&[]);
    shop.run("seed-data", &[]);
    let healthy = shop.run("ms-inventory", &["doctor"]);
    assert!(healthy.status.success(), "{}", printed(&healthy));

    let pool = shop.inventory_pool().await;
    sqlx::query("update stock set on_hand = on_hand + 1 where product_id = 3").execute(&pool).await.unwrap();
    sqlx::query("update stock set reserved = 2 where product_id = 5").execute(&pool).await.unwrap();
    let ill = shop.run("ms-inventory", &["doctor"]);
    assert_eq!(ill.status.code(), Some(1), "{}", printed(&ill));
    let named: Vec<String> =
        printed(&ill).lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).take(2).collect();
    assert_eq!(named, ["product 3", "product 5"], "{}", printed(&ill));
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_purged() {
    let shop = Shop::open().await;
    let product: i64 = shop.product("1.00", 10).await.parse().unwrap();
    let dead_letters = |arguments: &[&str]| shop.run("ms-inventory", &[&["dead-letters"], arguments].concat());
    let list = || printed(&dead_letters(&["list"]));
    assert_eq!(list(), "0 dead letters\n");

    publish(&shop, "orders", "order.created", "no JSON at all").await;
    publish(&shop, "orders", "order.cancelled", r#"{"event":"OrderCancelled"}"#).await;
    // As if the broker had given up on a good order.
    let good = json!({"event": "OrderCreated", "order_id": "ORD-1", "items": [{"product_id": product, "quantity": 3}]});
    publish(&shop, queues::DEAD_LETTERS, queues::ORDER_CREATED, &good.to_string()).await;
    eventually("there are three", async || list().ends_with("3 dead letters\n")).await;
    let id = |part: &str| {
        let list = list();
        let line = list.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {list}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    let (garbage, incomplete) = (id("expected"), id("missing field `order_id`"));
    let unknown = id("unknown");
    let shown = dead_letters(&["show", &unknown]);
    assert!(shown.status.success() && printed(&shown).contains(&good.to_string()), "{}", printed(&shown));

    let replayed = dead_letters(&["replay", &unknown]);
    assert_eq!(printed(&replayed), "1 replayed\n");
    becomes(json!("HELD"), async || shop.hold("ORD-1").await["status"].clone()).await;
    assert_eq!(shop.levels(&product.to_string()).await["reserved"], 3);
    assert!(list().ends_with("2 dead letters\n"), "{}", list());

    // What is still wrong comes back.
    assert_eq!(printed(&dead_letters(&["replay", &garbage])), "1 replayed\n");
    eventually("it is dead again", async || list().contains(&garbage)).await;
    assert_eq!(printed(&dead_letters(&["purge", &garbage])), "1 purged\n");
    assert!(list().contains(&incomplete) && list().ends_with("1 dead letters\n"), "{}", list());
    let other = dead_letters(&["list", "--queue", queues::ORDER_CREATED]);
    assert_eq!(printed(&other), "0 dead letters\n");
    assert_eq!(printed(&dead_letters(&["purge", "--all"])), "1 purged\n");
    assert_eq!(list(), "0 dead letters\n");

    for (arguments, complaint) in [
        (["show", garbage.as_str()], "there is no dead letter"),
        (["purge", garbage.as_str()], "there are no such dead letters"),
        (["list", "--queue=nonsense"], "there are order.created.inventory, order.settled.inventory"),
    ] {
        let refused = dead_letters(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(printed(&refused).contains(complaint), "{}", printed(&refused));
    }
    assert_eq!(printed(&shop.run("ms-orders", &["dead-letters", "list"])), "0 dead letters\n");
}

/// Publishes a message somebody listens to.
async fn publish(shop: &Shop, exchange: &str, routing_key: &str, body: &str) {
    let connection = Connection::connect(shop.vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default();
    let sent = channel.basic_publish(exchange.into(), routing_key.into(), options, body.as_bytes(), properties).await;
    let confirmed = sent.unwrap().await.unwrap();
    assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "nobody listens to {routing_key}");
    connection.close(200, "bye".into()).await.unwrap();
}
