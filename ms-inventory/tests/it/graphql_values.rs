//! Hostile and absurd values get a code and a reason, and never an INTERNAL.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use database::{Bounds, Database};
use serde_json::{Value, json};

use crate::graphql_client::{Api, nodes};
use crate::holds::cancel;
use crate::world::World;

#[tokio::test]
async fn a_product_is_asked_for_by_exactly_one_thing() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    for query in ["{ product { id } }", "{ product(id: 1, sku: \"A\") { id } }"] {
        let refusal = api.refused("INVALID", query, json!({})).await;
        assert_eq!(refusal["message"], "give either id or sku");
    }
}

#[tokio::test]
async fn ids_have_64_bits_and_no_more() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let product = "query($id: ID!) { product(id: $id) { id } }";
    for id in
        [json!("9223372036854775807"), json!(9_223_372_036_854_775_807_i64), json!("-9223372036854775808"), json!(0)]
    {
        assert_eq!(api.ask(product, json!({ "id": id })).await, Value::Null);
    }
    for id in [
        json!("9223372036854775808"),
        json!(1e300),
        json!("one"),
        json!(""),
        json!("1; drop table products"),
        json!(1.5),
    ] {
        api.refused("INVALID", product, json!({ "id": id })).await;
    }
    api.refused("INVALID", "{ product(id: 99999999999999999999) { id } }", json!({})).await;
    api.refused("INVALID", "{ movements(productId: \"x\") { nodes { id } } }", json!({})).await;
}

#[tokio::test]
async fn nul_and_megabytes_are_refused_wherever_they_stand() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let megabyte = "x".repeat(1_000_000);
    for bad in ["a\0b", &megabyte] {
        for (query, variables) in [
            ("query($v: String) { product(sku: $v) { id } }", json!({ "v": bad })),
            ("query($v: ID!) { hold(orderId: $v) { status } }", json!({ "v": bad })),
            ("query($v: ID!) { product(id: $v) { id } }", json!({ "v": bad })),
            ("query($v: String) { products(filter: {search: $v}) { nodes { id } } }", json!({ "v": bad })),
            ("query($v: String) { products(after: $v) { nodes { id } } }", json!({ "v": bad })),
            ("query($v: String) { holds(after: $v) { nodes { status } } }", json!({ "v": bad })),
            ("query($v: String) { movements(after: $v) { nodes { id } } }", json!({ "v": bad })),
            (
                "mutation($v: String!) { createProduct(input: {sku: $v, name: \"N\", price: 1}) { id } }",
                json!({ "v": bad }),
            ),
            (
                "mutation($v: String!) { createProduct(input: {sku: \"S\", name: $v, price: 1}) { id } }",
                json!({ "v": bad }),
            ),
            (
                "mutation($v: String) { createProduct(input: {sku: \"S\", name: \"N\", price: 1, description: $v}) { id } }",
                json!({ "v": bad }),
            ),
            (
                "mutation($v: Decimal!) { createProduct(input: {sku: \"S\", name: \"N\", price: $v}) { id } }",
                json!({ "v": bad }),
            ),
            (
                "mutation($v: String) { adjustStock(input: {productId: 1, delta: 1, reason: $v}) { id } }",
                json!({ "v": bad }),
            ),
            (
                "mutation($v: String) { adjustStock(input: {productId: 1, delta: 1, idempotencyKey: $v}) { id } }",
                json!({ "v": bad }),
            ),
        ] {
            let refusal = api.refused("INVALID", query, variables).await;
            assert!(refusal["message"].as_str().unwrap().len() < 500, "{query}");
        }
    }
}

#[tokio::test]
async fn numbers_have_32_bits() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(1).await;
    for query in [
        "query($n: Int) { products(first: $n) { nodes { id } } }",
        "query($n: Int) { holds(first: $n) { nodes { status } } }",
        "query($n: Int) { movements(first: $n) { nodes { id } } }",
        "query($n: Int) { products(filter: {minAvailable: $n}) { nodes { id } } }",
        "mutation($n: Int!) { adjustStock(input: {productId: 1, delta: $n}) { id } }",
        "mutation($n: Int!) { adjustStock(input: {productId: 1, delta: 1, expectedOnHand: $n}) { id } }",
        "mutation($n: Int!) { updateProduct(id: 1, input: {expectedVersion: $n, name: \"N\"}) { id } }",
        "mutation($n: Int) { createProduct(input: {sku: \"S\", name: \"N\", price: 1, onHand: $n}) { id } }",
    ] {
        for number in [json!(2_147_483_648_i64), json!(i64::MIN), json!(u64::MAX), json!(1.5), json!("1")] {
            api.refused("INVALID", query, json!({ "n": number })).await;
        }
    }
    assert_eq!(world.level(id).await.on_hand, 1);
}

#[tokio::test]
async fn a_costly_page_is_refused_before_it_is_read() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let pages: String = (0..30)
        .map(|n| {
            format!(
                "p{n}: products(first: 100) {{ nodes {{ __typename id sku name price onHand available version }} }} "
            )
        })
        .collect();
    let refusal = api.refused("TOO_COMPLEX", &format!("{{ {pages} }}"), json!({})).await;
    assert_eq!(refusal["message"], "Query is too complex.");
    let typenames: String =
        (0..300).map(|n| format!("p{n}: products(first: 100) {{ nodes {{ __typename }} }} ")).collect();
    api.refused("TOO_COMPLEX", &format!("{{ {typenames} }}"), json!({})).await;
}

#[tokio::test]
async fn a_hold_tells_what_became_of_an_order() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let (a, b) = (world.product(5).await, world.product(1).await);
    world
        .hold([
            ("ORD-held", vec![(a, 2), (b, 1)]),
            ("ORD-short", vec![(a, 1), (b, 1)]),
            ("ORD-absurd", vec![(a, i64::MAX)]),
            ("ORD-ünknown", vec![(4711, 1)]),
        ])
        .await;
    cancel(&world, &["ORD-never-came"]).await;

    let fields = "orderId status items { productId quantity product { available } } expiresAt reason
        shortages { productId requested available } createdAt settledAt";
    let hold = async |id: &str| {
        let query = format!("query($id: ID!) {{ hold(orderId: $id) {{ {fields} }} }}");
        api.ask(&query, json!({ "id": id })).await
    };
    let held = hold("ORD-held").await;
    assert_eq!(held["status"], "HELD");
    assert_eq!(
        held["items"],
        json!([
            { "productId": a.to_string(), "quantity": 2, "product": { "available": 3 } },
            { "productId": b.to_string(), "quantity": 1, "product": { "available": 0 } },
        ])
    );
    assert!(held["expiresAt"].is_string() && held["settledAt"].is_null() && held["reason"].is_null(), "{held}");

    let short = hold("ORD-short").await;
    assert_eq!(short["status"], "REJECTED");
    assert!(short["reason"].as_str().unwrap().starts_with("Insufficient stock"), "{short}");
    assert_eq!(short["shortages"], json!([{ "productId": b.to_string(), "requested": 1, "available": 0 }]));
    assert_eq!(short["expiresAt"], Value::Null);

    let absurd = hold("ORD-absurd").await;
    assert_eq!(absurd["status"], "REJECTED");
    assert_eq!(absurd["items"][0]["quantity"], i32::MAX);
    let unknown = hold("ORD-ünknown").await;
    assert_eq!(unknown["items"][0]["product"], Value::Null);
    let tombstone = hold("ORD-never-came").await;
    assert_eq!(tombstone["status"], "REJECTED");
    assert_eq!(tombstone["items"], json!([]));
    assert_eq!(hold("ORD-nobody-knows").await, Value::Null);

    let list = async |arguments: &str| {
        nodes(&api.ask(&format!("{{ holds({arguments}) {{ nodes {{ orderId }} }} }}"), json!({})).await, "orderId")
    };
    assert_eq!(list("status: HELD").await, ["ORD-held"]);
    assert_eq!(list("first: 100").await.len(), 5);
    let of_b = list(&format!("productId: {b}")).await;
    assert_eq!(of_b.len(), 2);
    assert_eq!(list(&format!("productId: {b}, status: REJECTED")).await, ["ORD-short"]);
}

#[tokio::test]
async fn holds_are_read_page_by_page_from_the_newest() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let product = world.product(1_000).await;
    for batch in 0..3 {
        // All of a batch have the same time.
        world.hold((0..5).map(|n| (format!("ORD-{batch}-{n}"), vec![(product, 1)]))).await;
    }
    let query = "query($after: String) { holds(first: 4, after: $after) { nodes { orderId } pageInfo { hasNextPage endCursor } } }";
    let mut read = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = api.ask(query, json!({ "after": after })).await;
        read.extend(nodes(&page, "orderId"));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    let expected: Vec<String> =
        (0..3).rev().flat_map(|batch| (0..5).rev().map(move |n| format!("ORD-{batch}-{n}"))).collect();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_cursor_made_up_of_what_no_column_holds_is_refused() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let cursor = |key: &str| BASE64_URL_SAFE_NO_PAD.encode(key);
    for (list, order, key) in [
        ("products", "orderBy: {field: NAME}", r#"{"n":["a\u0000b",1]}"#),
        ("products", "orderBy: {field: UPDATED_AT}", r#"{"u":["-262143-01-01T00:00:00Z",1]}"#),
        ("holds", "first: 1", r#"["2026-11-27T00:00:00Z","a\u0000b"]"#),
    ] {
        let query = format!("query($after: String) {{ {list}({order}, after: $after) {{ nodes {{ __typename }} }} }}");
        api.refused("INVALID", &query, json!({ "after": cursor(key) })).await;
    }
}

#[tokio::test]
async fn a_request_cannot_hold_hundreds_of_lists_or_changes() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let many = |field: &str| (0..450).map(|n| format!("a{n}: {field} ")).collect::<String>();
    let lists = many(r#"products(first: 0, filter: {search: "zz"}) { totalCount }"#);
    api.refused("TOO_COMPLEX", &format!("{{ {lists} }}"), json!({})).await;
    let changes = many("adjustStock(input: {productId: 1, delta: 1, reason: \"x\"}) { id }");
    api.refused("TOO_COMPLEX", &format!("mutation {{ {changes} }}"), json!({})).await;
}

/// A server that restarted leaves idle connections behind that are gone.
#[tokio::test]
async fn connections_that_are_gone_cost_no_reader_an_error() {
    let world = World::new().await;
    let product = world.product(1).await;
    let pool = Database::open(&world.database.url().into(), "reader", &Bounds::default()).unwrap().requests;
    let api = Api::serve(&pool).await;
    let read = "query($id: ID!) { product(id: $id) { onHand } }";
    let variables = json!({"id": product.to_string()});
    let together = (0..8).map(|_| api.ask(read, variables.clone()));
    futures::future::join_all(together).await;
    let others = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reader'
                  and datname = current_database()";
    sqlx::query(others).execute(&world.pool).await.unwrap();
    // By then none of them is trusted any more.
    tokio::time::sleep(Duration::from_millis(150)).await;
    for _ in 0..8 {
        assert_eq!(api.ask(read, variables.clone()).await, json!({"onHand": 1}));
    }
}
