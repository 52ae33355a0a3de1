//! What bad input gets.

use dev::testing::Vhost;
use serde_json::{Value, json};

use crate::world::{CREATE, World};

#[tokio::test]
async fn bad_orders_are_refused_by_name_and_leave_nothing_behind() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "9999999999.99"), (2, "1")]).await;
    let instance = world.start(&vhost, &[]).await;
    let line = |product: Value, quantity: Value| json!({"productId": product, "quantity": quantity});
    let items = |items: Value| json!({"items": items});
    let of = |product: Value, quantity: Value| items(json!([line(product, quantity)]));
    let with = |field: &str, value: Value| {
        let mut input = of(json!("2"), json!(1));
        input[field] = value;
        input
    };
    for (input, code, message) in [
        (items(json!([])), "INVALID", "an order needs at least one item"),
        (items(vec![line(json!("2"), json!(1)); 1_001].into()), "INVALID", "an order has at most 1000 items"),
        (of(json!("2"), json!(0)), "INVALID", "the quantity of product 2 must be between 1 and 1000000"),
        (of(json!("2"), json!(-1)), "INVALID", "the quantity of product 2 must be"),
        (of(json!("2"), json!(1_000_001)), "INVALID", "the quantity of product 2 must be"),
        (items(vec![line(json!("2"), json!(600_000)); 2].into()), "INVALID", "the quantity of product 2 must be"),
        (of(json!("2"), json!(2_147_483_648_i64)), "INVALID", ""),
        (of(json!("2"), json!(1.5)), "INVALID", ""),
        (of(json!("2"), json!("1")), "INVALID", ""),
        (of(json!("2"), Value::Null), "INVALID", ""),
        (of(json!("7"), json!(1)), "NOT_FOUND", "there are no such products: 7"),
        (of(json!("-1"), json!(1)), "NOT_FOUND", "there are no such products: -1"),
        (of(json!("9223372036854775807"), json!(1)), "NOT_FOUND", "9223372036854775807"),
        (of(json!("9223372036854775808"), json!(1)), "INVALID", "an id here is a whole number"),
        (of(json!("abc"), json!(1)), "INVALID", "an id here is a whole number"),
        (of(json!("1"), json!(1)), "INVALID", "the total is larger than 9999999999.99"),
        (of(json!("1"), json!(1_000_000)), "INVALID", "the total is larger than 9999999999.99"),
        (with("idempotencyKey", json!("")), "INVALID", "idempotencyKey is empty"),
        (with("idempotencyKey", json!("é".repeat(256))), "INVALID", "idempotencyKey is longer than 255 characters"),
        (with("idempotencyKey", json!("a\0b")), "INVALID", "NUL"),
        (with("paymentReference", json!("x".repeat(256))), "INVALID", "paymentReference is longer than 255 characters"),
        (with("paymentReference", json!("x".repeat(1024 * 1024))), "INVALID", "paymentReference is longer"),
        (with("paymentReference", json!("\0")), "INVALID", "NUL"),
        (with("price", json!("0.01")), "INVALID", ""),
    ] {
        let refusal = instance.refusal(CREATE, json!({"input": input})).await;
        assert_eq!(refusal["extensions"]["code"], code, "{input}: {refusal}");
        assert!(refusal["message"].as_str().unwrap().contains(message), "{input}: {refusal}");
    }
    let unknown = items(json!([line(json!("7"), json!(1)), line(json!("2"), json!(1)), line(json!("8"), json!(1))]));
    let refusal = instance.refusal(CREATE, json!({"input": unknown})).await;
    assert_eq!(refusal["extensions"]["productIds"], json!(["7", "8"]));

    for table in ["orders", "order_lines", "order_steps", "outbox"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    let emoji = with("paymentReference", json!("🫖".repeat(255)));
    assert_eq!(instance.create(emoji).await["status"], "PENDING");
}

#[tokio::test]
async fn bad_questions_are_refused_and_unknown_orders_are_null() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let instance = world.start(&vhost, &[]).await;
    let nul_cursor = "Ilx1MDAwMCI="; // "\u0000"
    for (query, message) in [
        ("{ orders(first: -1) { totalCount } }".to_owned(), "first must be between 0 and 100"),
        ("{ orders(first: 101) { totalCount } }".to_owned(), "first must be between 0 and 100"),
        (r#"{ orders(after: "nonsense") { totalCount } }"#.to_owned(), "after is not a cursor of this list"),
        (format!(r#"{{ orders(after: "{nul_cursor}") {{ totalCount }} }}"#), "after is not a cursor of this list"),
        ("{ orders(status: LOST) { totalCount } }".to_owned(), ""),
        ("{ quote(items: []) { total } }".to_owned(), "an order needs at least one item"),
        (r#"{ quote(items: [{productId: "1", quantity: 0}]) { total } }"#.to_owned(), "the quantity of product 1"),
        (r#"{ order(id: "\u0000") { id } }"#.to_owned(), "NUL"),
    ] {
        let refusal = instance.refusal(&query, json!({})).await;
        assert_eq!(refusal["extensions"]["code"], "INVALID", "{query}: {refusal}");
        assert!(refusal["message"].as_str().unwrap().contains(message), "{query}: {refusal}");
    }
    for id in ["", "ORD-1", "'; drop table orders; --", &"x".repeat(100_000), "🫖"] {
        assert_eq!(instance.ask("query($id: ID!) { order(id: $id) { id } }", json!({"id": id})).await, Value::Null);
    }
}

#[tokio::test]
async fn a_request_cannot_place_hundreds_of_orders() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "1")]).await;
    let instance = world.start(&vhost, &[]).await;
    let place = "createOrder(input: {items: [{productId: 1, quantity: 1}]}) { id }";
    let many: String = (0..100).map(|n| format!("a{n}: {place} ")).collect();
    let answer = instance.send(&format!("mutation {{ {many} }}"), json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "TOO_COMPLEX", "{answer:.300}");
    assert_eq!(world.count("orders").await, 0);
}
