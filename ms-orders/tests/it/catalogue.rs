//! The copy of the catalogue: the newest version wins, whichever way it comes.

use std::collections::HashMap;

use dev::testing::Vhost;
use ms_orders::catalogue::{Product, keep, sold};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::inventory::Inventory;
use crate::world::{DEADLINE, World, changed, deleted, eventually};

const QUOTE: &str = r#"{ quote(items: [{productId: "1", quantity: 1}]) { subtotal } }"#;

#[tokio::test]
async fn the_newest_version_wins_in_whatever_order_and_batches_it_comes() {
    let world = World::new().await;
    let mut conn = world.pool.acquire().await.unwrap();
    let mut runner = TestRunner::default();
    for case in 0..100_i64 {
        let deleted_at = (0..9_i64).new_tree(&mut runner).unwrap().current();
        let versions = Just((1..9_i64).collect::<Vec<_>>()).prop_shuffle().new_tree(&mut runner).unwrap().current();
        let batch_size = (1..9_usize).new_tree(&mut runner).unwrap().current();
        // A product that is deleted has no later version.
        let versions: Vec<_> =
            versions.into_iter().filter(|version| deleted_at == 0 || *version <= deleted_at).collect();
        for batch in versions.chunks(batch_size) {
            let change = |&version| match version == deleted_at {
                true => deleted(case, version),
                false => changed(case, version, &version.to_string()),
            };
            keep(&mut conn, batch.iter().map(change)).await.unwrap();
        }
        let known = sold(&mut conn, &[case]).await.unwrap();
        let (sku, name, price) = (format!("SKU-{case}"), "Thing 8".to_owned(), Decimal::new(800, 2));
        let expected = Product { product_id: case, sku, name, price, version: 8 };
        let expected = if deleted_at == 0 { HashMap::from([(case, expected)]) } else { HashMap::new() };
        assert_eq!(known, expected, "deleted at {deleted_at}, {versions:?} by {batch_size}");
    }
}

#[tokio::test]
async fn a_late_change_does_not_revive_a_deleted_product() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let product = |event: &str, id: i64, version: i64, price: &str| {
        json!({"event": event, "product_id": id, "sku": "KB-60", "name": "Keyboard", "price": price, "version": version})
            .to_string()
    };
    let priced = async |price: &str| instance.send(QUOTE, json!({})).await["data"]["quote"]["subtotal"] == price;
    let gone = async || instance.send(QUOTE, json!({})).await["errors"][0]["extensions"]["code"] == "NOT_FOUND";

    assert!(gone().await);
    inventory.publish("product.changed", product("ProductChanged", 1, 2, "59.90").as_bytes()).await;
    eventually("the product is sold", async || priced("59.90").await).await;
    inventory.publish("product.changed", product("ProductChanged", 1, 1, "1").as_bytes()).await;
    inventory.publish("product.changed", product("ProductChanged", 1, 3, "61.5").as_bytes()).await;
    eventually("it has its new price", async || priced("61.50").await).await;
    inventory.publish("product.deleted", product("ProductDeleted", 1, 4, "61.5").as_bytes()).await;
    eventually("it is gone", gone).await;

    inventory.publish("product.changed", product("ProductChanged", 1, 3, "61.5").as_bytes()).await;
    inventory.publish("product.changed", product("ProductChanged", 2, 1, "1").as_bytes()).await;
    let mut conn = world.pool.acquire().await.unwrap();
    let mut marker_is_sold = async || !sold(&mut conn, &[2]).await.unwrap().is_empty();
    let patience = tokio::time::timeout(DEADLINE, async { while !marker_is_sold().await {} });
    patience.await.expect("the change after it has arrived");
    assert!(gone().await);
}

#[tokio::test]
async fn what_is_no_product_is_dead_lettered_with_its_reason_and_its_neighbours_are_kept() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let inventory = Inventory::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let product = |price: &str, name: &str| {
        format!(
            r#"{{"event":"ProductChanged","product_id":1,"sku":"A","name":"{name}","price":"{price}","version":1}}"#
        )
    };
    for (body, why) in [
        ("{}".to_owned(), "missing field `event`"),
        (product("-1", "A"), "a price of -1 cannot be charged"),
        (product("1.001", "A"), "a price of 1.001 cannot be charged"),
        (product("10000000000", "A"), "a price of 10000000000 cannot be charged"),
        (product("cheap", "A"), "not a valid event"),
        (product("1", "A\\u0000"), "its sku or name contains NUL"),
        (product("1", "A").replace("\"version\":1", "\"version\":\"1\""), "invalid type"),
        (product("1", "A").replace("ProductChanged", "StockReserved"), "unexpected event \"StockReserved\""),
    ] {
        inventory.publish("product.changed", body.as_bytes()).await;
        let (letter, reason) = inventory.dead_letter().await;
        assert_eq!(letter.data, body.as_bytes());
        assert!(reason.contains(why), "{reason}");
    }
    inventory.publish("product.changed", product("1", "🫖").as_bytes()).await;
    eventually("the product is sold", async || instance.send(QUOTE, json!({})).await["errors"].is_null()).await;
}

#[tokio::test]
async fn without_inventory_the_service_is_ready_and_says_what_is_missing() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let instance = world.start(&vhost, &[]).await;
    let health = instance.health().await;
    assert_eq!(health["ready"], true);
    let expected = json!({"status": "down", "needed": false, "reason": "not filled yet"});
    assert_eq!(health["dependencies"]["catalogue"], expected);
    assert_eq!(health["dependencies"]["postgres"], json!({"status": "up", "needed": true}));
    assert_ne!(health["dependencies"]["rabbitmq"], Value::Null);
}
