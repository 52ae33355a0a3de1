//! Stock is adjusted, and every change is booked.

use futures::future::join_all;
use ms_inventory::ledger;
use ms_inventory::stock::Level;
use serde_json::{Value, json};

use crate::graphql_client::{Api, nodes};
use crate::world::{ADMIN, World};

const ADJUST: &str =
    "mutation($input: AdjustStockInput!) { adjustStock(input: $input) { id onHand reserved available version } }";

async fn adjust(api: &Api, input: Value) -> Value {
    api.send(ADJUST, json!({ "input": input })).await
}

async fn movements(world: &World, product_id: i64) -> i64 {
    sqlx::query_scalar("select count(*) from movements where product_id = $1")
        .bind(product_id)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn stock_is_adjusted_and_booked() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    let added =
        api.ask(ADJUST, json!({ "input": { "productId": id, "delta": 5, "reason": "delivery 🚚 4711" } })).await;
    assert_eq!(added, json!({ "id": id.to_string(), "onHand": 15, "reserved": 0, "available": 15, "version": 1 }));
    let taken = api.ask(ADJUST, json!({ "input": { "productId": id, "delta": -15, "expectedOnHand": 15 } })).await;
    assert_eq!(taken["onHand"], 0);

    let booked = api.ask("{ movements { nodes { quantity reason note actor product { id } } } }", json!({})).await;
    let booked = booked["nodes"].as_array().unwrap();
    let product = json!({ "id": id.to_string() });
    assert_eq!(
        booked[0],
        json!({ "quantity": -15, "reason": "ADJUSTED", "note": "", "actor": ADMIN.to_string(), "product": product })
    );
    assert_eq!(
        booked[1],
        json!({ "quantity": 5, "reason": "ADJUSTED", "note": "delivery 🚚 4711", "actor": ADMIN.to_string(), "product": product })
    );
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_stale_expectation_tells_the_current_levels() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    world.hold([("ORD-1", vec![(id, 4)])]).await;
    for expected in [9, 11, 0, -1] {
        let input = json!({ "productId": id, "delta": 1, "expectedOnHand": expected });
        let refusal = api.refused("CONFLICT", ADJUST, json!({ "input": input })).await;
        assert_eq!(refusal["message"], format!("product {id} has 10 on hand, which is not what was expected"));
        assert_eq!(refusal["extensions"]["current"], json!({ "onHand": 10, "reserved": 4, "available": 6 }));
    }
    assert_eq!(movements(&world, id).await, 1);
}

#[tokio::test]
async fn what_is_held_cannot_be_taken_away() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    world.hold([("ORD-1", vec![(id, 4)])]).await;
    for delta in [-7, -10, -11, -1_000_000_000] {
        let refusal = api.refused("CONFLICT", ADJUST, json!({ "input": { "productId": id, "delta": delta } })).await;
        let expected = json!({
            "code": "CONFLICT",
            "constraint": "no_oversell",
            "current": { "onHand": 10, "reserved": 4, "available": 6 },
        });
        assert_eq!(refusal["extensions"], expected);
    }
    let all = api.ask(ADJUST, json!({ "input": { "productId": id, "delta": -6 } })).await;
    assert_eq!([&all["onHand"], &all["reserved"], &all["available"]], [4, 4, 0]);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_absurd_adjustment_is_refused() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    let long = |chars: usize| "x".repeat(chars);
    for (input, message) in [
        (json!({ "productId": id, "delta": 0 }), "delta must not be 0"),
        (json!({ "productId": id, "delta": i32::MIN }), "delta must be at most 1000000000 either way"),
        (json!({ "productId": id, "delta": i32::MAX }), "delta must be at most 1000000000 either way"),
        (json!({ "productId": id, "delta": 1, "reason": long(501) }), "reason is longer than 500 characters"),
        (json!({ "productId": id, "delta": 1, "idempotencyKey": "" }), "idempotencyKey is empty"),
        (
            json!({ "productId": id, "delta": 1, "idempotencyKey": long(256) }),
            "idempotencyKey is longer than 255 characters",
        ),
    ] {
        let refusal = api.refused("INVALID", ADJUST, json!({ "input": input })).await;
        assert_eq!(refusal["message"], message);
    }
    api.refused("NOT_FOUND", ADJUST, json!({ "input": { "productId": "4711", "delta": 1 } })).await;
    let beyond = api.refused("CONFLICT", ADJUST, json!({ "input": { "productId": id, "delta": 999_999_991 } })).await;
    assert_eq!(beyond["message"], format!("product {id} has 10 on hand, and there can be at most 1000000000"));
    let most = api.ask(ADJUST, json!({ "input": { "productId": id, "delta": 999_999_990 } })).await;
    assert_eq!(most["onHand"], 1_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn adjustments_at_once_lose_nothing() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(100).await;
    let deltas = (0..60).map(|n| if n % 3 == 0 { 7 } else { -3 });
    let answers = join_all(deltas.map(|delta| adjust(&api, json!({ "productId": id, "delta": delta })))).await;
    assert!(answers.iter().all(|answer| answer["errors"].is_null()), "{answers:?}");
    assert_eq!(world.level(id).await, Level { on_hand: 100 + 20 * 7 - 40 * 3, reserved: 0 });
    assert_eq!(movements(&world, id).await, 61);
    world.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_expect_the_same_one_wins() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    let input = json!({ "productId": id, "delta": 1, "expectedOnHand": 10 });
    let answers = join_all((0..20).map(|_| adjust(&api, input.clone()))).await;
    assert_eq!(answers.iter().filter(|answer| answer["errors"].is_null()).count(), 1);
    let stale = answers.iter().filter(|answer| answer["errors"][0]["extensions"]["current"]["onHand"] == 11);
    assert_eq!(stale.count(), 19);
    assert_eq!(world.level(id).await.on_hand, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_adjustment_gets_the_first_answer() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(10).await;
    let input =
        json!({ "productId": id, "delta": -3, "reason": "broken", "expectedOnHand": 10, "idempotencyKey": "key" });
    let answers = join_all((0..20).map(|_| adjust(&api, input.clone()))).await;
    for answer in &answers {
        assert_eq!(*answer, answers[0]);
        assert_eq!(answer["data"]["adjustStock"]["onHand"], 7);
    }
    assert_eq!(movements(&world, id).await, 2);

    adjust(&api, json!({ "productId": id, "delta": 100 })).await;
    assert_eq!(adjust(&api, input.clone()).await, answers[0], "whatever came later");
    for (field, value) in [
        ("delta", json!(-4)),
        ("reason", json!("stolen")),
        ("expectedOnHand", json!(null)),
        ("productId", json!(world.product(1).await)),
    ] {
        let mut other = input.clone();
        other[field] = value;
        let refusal = api.refused("CONFLICT", ADJUST, json!({ "input": other })).await;
        assert_eq!(refusal["message"], "the idempotency key \"key\" was used for another adjustment");
        assert_eq!(refusal["extensions"], json!({ "code": "CONFLICT", "field": "idempotencyKey" }));
    }
    assert_eq!(world.level(id).await.on_hand, 107);
    world.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_for_two_products_at_once_adjusts_one() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    for round in 0..20 {
        let (a, b) = (world.product(0).await, world.product(0).await);
        let input = |id: i64| json!({ "productId": id, "delta": 1, "idempotencyKey": format!("key {round}") });
        let (first, second) = tokio::join!(adjust(&api, input(a)), adjust(&api, input(b)));
        let codes = [&first["errors"][0]["extensions"]["code"], &second["errors"][0]["extensions"]["code"]];
        assert!(codes.iter().filter(|code| **code == "CONFLICT").count() == 1, "{first} and {second}");
        assert_eq!(world.level(a).await.on_hand + world.level(b).await.on_hand, 1);
    }
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_refused_adjustment_does_not_use_up_its_key() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let id = world.product(1).await;
    let input = json!({ "productId": id, "delta": -2, "idempotencyKey": "key" });
    api.refused("CONFLICT", ADJUST, json!({ "input": input })).await;
    adjust(&api, json!({ "productId": id, "delta": 1 })).await;
    let adjusted = api.ask(ADJUST, json!({ "input": input })).await;
    assert_eq!(adjusted["onHand"], 0);
}

#[tokio::test]
async fn movements_are_read_page_by_page_from_the_newest() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let (id, other) = (world.product(0).await, world.product(3).await);
    for delta in 1..=5 {
        adjust(&api, json!({ "productId": id, "delta": delta })).await;
    }
    let query = "query($id: ID, $after: String) { movements(productId: $id, first: 2, after: $after) {
        nodes { quantity productId } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let mut read = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = api.ask(query, json!({ "id": id, "after": after })).await;
        assert_eq!(page["pageInfo"]["hasPreviousPage"], !after.is_null());
        read.extend(nodes(&page, "quantity"));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(read, [5, 4, 3, 2, 1]);
    let all = api.ask("{ movements(first: 100) { nodes { productId } } }", json!({})).await;
    let all = nodes(&all, "productId");
    assert_eq!(all.len(), 6);
    assert_eq!(all[5], other.to_string());
}

#[tokio::test]
async fn old_idempotency_keys_are_deleted_a_bounded_number_at_a_time() {
    let world = World::new().await;
    sqlx::query(
        "insert into adjustments (idempotency_key, product_id, delta, note, on_hand, reserved, created_at)
         select n::text, 1, 1, '', 1, 0, now() - make_interval(mins => 60 * 23 + 40 * least(n, 2)::int)
         from generate_series(0, 2500) as n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let count = "select count(*) from adjustments";
    for (expected, expected_more) in [(1_501, true), (501, true), (2, false)] {
        let mut tx = world.connections.begin().await.unwrap();
        let more = ledger::forget_adjustments(&mut tx, 24).await.unwrap();
        tx.commit().await.unwrap();
        let left: i64 = sqlx::query_scalar(count).fetch_one(&world.pool).await.unwrap();
        assert_eq!((left, more), (expected, expected_more));
    }
    let mut left: Vec<String> =
        sqlx::query_scalar("select idempotency_key from adjustments").fetch_all(&world.pool).await.unwrap();
    left.sort_unstable();
    assert_eq!(left, ["0", "1"], "those of the last 24 hours stay");
}
