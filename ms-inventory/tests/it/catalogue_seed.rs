//! `seed-data` fills an empty catalogue and leaves a full one alone.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::graphql_client::Api;
use crate::world::World;

async fn seed(world: &World) -> String {
    let mut seed = Command::new(env!("CARGO_BIN_EXE_seed-data"));
    let Output { status, stdout, stderr } =
        seed.env("INVENTORY_DATABASE_URL", world.database.url()).kill_on_drop(true).output().await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[tokio::test]
async fn seeding_again_changes_nothing() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let (first, second) = tokio::join!(seed(&world), seed(&world));
    let all = "{ products(first: 100) { totalCount nodes { id sku onHand version } } }";
    let seeded = api.ask(all, json!({})).await;
    assert!(seeded["totalCount"].as_i64().unwrap() >= 12);
    assert_eq!(seeded["nodes"][0]["id"], "1");
    assert!(first.contains("MUG-STONE-350") && second.contains("MUG-STONE-350"), "{first}");
    let last_lines = [first.lines().last().unwrap(), second.lines().last().unwrap()];
    assert!(last_lines.contains(&"18 of 18 sample products added"), "{last_lines:?}");
    assert!(last_lines.contains(&"0 of 18 sample products added"), "{last_lines:?}");

    let on_hand = |product: &Value| product["onHand"].as_i64().unwrap();
    let products = seeded["nodes"].as_array().unwrap();
    assert!(on_hand(&products[0]) >= 100, "the first product is for trying things out");
    assert!(products.iter().any(|product| on_hand(product) == 0));
    assert!(products.iter().any(|product| (1..=3).contains(&on_hand(product))));

    api.ask("mutation { adjustStock(input: {productId: 1, delta: -1}) { id } }", json!({})).await;
    let adjusted = api.ask(all, json!({})).await;
    assert!(seed(&world).await.ends_with("0 of 18 sample products added\n"));
    assert_eq!(api.ask(all, json!({})).await, adjusted);
    assert_eq!(world.told().await.len(), 18);
    world.assert_adds_up().await;
}
