//! Orders as they are listed.

use dev::testing::Vhost;
use serde_json::{Value, json};

use crate::statements::Statements;
use crate::world::{Instance, World};

const PAGE: &str = "query($first: Int, $after: String, $status: OrderStatus) {
  orders(first: $first, after: $after, status: $status) {
    totalCount
    edges { cursor node { id status } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}";

/// Nothing in the background asks the database.
const QUIET: &[&str] = &["--outbox-period-ms", "600000", "--reask-period-ms", "600000"];

async fn all(instance: &Instance, first: usize, status: Value) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = instance.ask(PAGE, json!({"first": first, "after": after, "status": status})).await;
        let edges = page["edges"].as_array().unwrap();
        ids.extend(edges.iter().map(|edge| edge["node"]["id"].as_str().unwrap().to_owned()));
        assert_eq!(page["pageInfo"]["hasPreviousPage"], !after.is_null());
        if page["pageInfo"]["hasNextPage"] == false {
            assert!(page["totalCount"] == ids.len(), "{page}");
            return ids;
        }
        assert_eq!(edges.len(), first);
        after = page["pageInfo"]["endCursor"].clone();
    }
}

#[tokio::test]
async fn pages_of_any_size_list_all_orders_newest_first() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start(&vhost, QUIET).await;
    assert_eq!(all(&instance, 3, Value::Null).await, [""; 0]);
    let mut placed = Vec::new();
    for _ in 0..25 {
        placed.push(world.place(&[(1, 1)]).await);
    }
    placed.reverse();
    let confirmed: Vec<String> = placed.iter().step_by(3).cloned().collect();
    sqlx::query("update orders set status = 'confirmed' where id = any($1)")
        .bind(&confirmed)
        .execute(&world.pool)
        .await
        .unwrap();
    let pending: Vec<String> = placed.iter().filter(|id| !confirmed.contains(id)).cloned().collect();
    for first in [1, 2, 5, 24, 25, 26, 100] {
        assert_eq!(all(&instance, first, Value::Null).await, placed, "by {first}");
        assert_eq!(all(&instance, first, json!("CONFIRMED")).await, confirmed, "by {first}");
        assert_eq!(all(&instance, first, json!("PENDING")).await, pending, "by {first}");
        assert_eq!(all(&instance, first, json!("CANCELLED")).await, [""; 0], "by {first}");
    }
}

#[tokio::test]
async fn a_page_takes_a_few_statements_whatever_its_size() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1"), (2, "1")]).await;
    for _ in 0..60 {
        world.place(&[(1, 1), (2, 1)]).await;
    }
    let statements = Statements::listen();
    // The relay is at work beside.
    let about_orders = || statements.heard().into_iter().filter(|statement| statement.contains("from order"));
    let instance = world.start(&vhost, QUIET).await;
    let query = "query($first: Int) { orders(first: $first) { edges { node {
        id items { productId quantity } timeline { status at }
    } } } }";
    let mut heard = Vec::new();
    for first in [1, 50] {
        statements.heard();
        let page = instance.ask(query, json!({"first": first})).await;
        heard.push(about_orders().collect::<Vec<_>>());
        let nodes = page["edges"].as_array().unwrap();
        assert_eq!(nodes.len(), first);
        assert!(nodes.iter().all(|edge| edge["node"]["items"].as_array().unwrap().len() == 2));
        assert!(nodes.iter().all(|edge| edge["node"]["timeline"].as_array().unwrap().len() == 1));
    }
    // What is asked for a moment later than the rest, on a busy machine, is read by a statement of its own.
    assert!(heard[0].len() == 3 && heard[1].len() <= 6, "{heard:#?}");

    statements.heard();
    instance.ask("{ orders { totalCount edges { node { id } } } }", json!({})).await;
    assert_eq!(about_orders().count(), 2, "the orders, and how many there are");
}
