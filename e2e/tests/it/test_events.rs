//! `test-events`, the program by which a person convinces themselves that inventory works.

use std::process::Output;

use dev::testing::Vhost;
use events::{inventory, orders};
use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Value, json};

use crate::shop::{Shop, printed};

#[tokio::test]
async fn it_is_content_with_fresh_services_and_leaves_nothing_behind() {
    let shop = Shop::open().await;
    let product = shop.product("1.00", 1).await;
    let said = test_events(&shop, shop.vhost.amqp_url(), &shop.inventory.url);
    assert!(said.status.success(), "{}", printed(&said));
    for row in ["StockReserved", "StockRejected: Insufficient stock", "dead letter: ", "StockReleased: refunded"] {
        assert!(printed(&said).contains(row), "no {row} in\n{}", printed(&said));
    }
    assert_eq!(shop.levels(&product).await, json!({"onHand": 1, "reserved": 0, "available": 1}));
    // It may be repeated at once.
    let again = test_events(&shop, shop.vhost.amqp_url(), &shop.inventory.url);
    assert!(again.status.success(), "{}", printed(&again));
}

#[tokio::test]
async fn it_says_so_when_nobody_answers() {
    let mut shop = Shop::open().await;
    shop.product("1.00", 1).await;
    let silent = Vhost::create().unwrap();
    let unheard = test_events(&shop, silent.amqp_url(), &shop.inventory.url);
    assert_eq!(unheard.status.code(), Some(1), "{}", printed(&unheard));
    assert!(printed(&unheard).contains("19 surprises"), "{}", printed(&unheard));

    shop.inventory.stop().await;
    let alone = test_events(&shop, shop.vhost.amqp_url(), &shop.inventory.url);
    assert_eq!(alone.status.code(), Some(1), "{}", printed(&alone));
    assert!(printed(&alone).contains(&format!("cannot ask {}", shop.inventory.url)), "{}", printed(&alone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sees_through_an_inventory_that_reserves_everything() {
    let shop = Shop::open().await;
    shop.product("1.00", 1).await;
    let other = Vhost::create().unwrap();
    let _liar = Liar::listen(other.amqp_url()).await;
    let said = test_events(&shop, other.amqp_url(), &shop.inventory.url);
    assert_eq!(said.status.code(), Some(1), "{}", printed(&said));
    let surprised = |what: &str| printed(&said).lines().any(|line| line.starts_with(what) && line.contains("surprise"));
    assert!(!surprised("an order for one"), "{}", printed(&said));
    for lie in [
        "the same id, other items",
        "more than there is",
        "a product nobody knows",
        "no items",
        "the rejected order again",
        "the cancelled order again",
        "the refunded order again",
    ] {
        assert!(surprised(lie), "not surprised at: {lie}\n{}", printed(&said));
    }
}

fn test_events(shop: &Shop, amqp_url: &str, inventory_url: &str) -> Output {
    let flags = ["--amqp-url", amqp_url, "--inventory-url", inventory_url, "--timeout-seconds", "2"];
    shop.run_without_environment("test-events", &flags)
}

/// Says StockReserved to whatever it hears.
struct Liar(#[expect(dead_code, reason = "it lies for as long as it is connected")] Connection);

impl Liar {
    async fn listen(amqp_url: &str) -> Self {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in [orders::EXCHANGE, inventory::EXCHANGE] {
            let kind = ExchangeKind::Topic;
            channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await.unwrap();
        }
        let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await.unwrap();
        let (name, options) = (queue.name().clone(), QueueBindOptions::default());
        let exchange = orders::EXCHANGE.into();
        channel.queue_bind(name.clone(), exchange, "order.#".into(), options, FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let tag = ShortString::default();
        let mut heard = channel.basic_consume(name, tag, options, FieldTable::default()).await.unwrap();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = heard.next().await {
                let event: Value = serde_json::from_slice(&delivery.data).unwrap();
                let lie = json!({"event": "StockReserved", "order_id": event["order_id"], "items": []}).to_string();
                let (exchange, key) = (inventory::EXCHANGE.into(), "stock.reserved".into());
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                channel.basic_publish(exchange, key, options, lie.as_bytes(), properties).await.unwrap();
            }
        });
        Self(connection)
    }
}
