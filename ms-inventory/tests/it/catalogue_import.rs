//! Many products come at once, all or none.

use serde_json::{Value, json};

use crate::graphql_client::{Api, PRODUCT, nodes};
use crate::graphql_statements::statements;
use crate::world::World;

fn rows(prefix: &str, count: usize) -> Vec<Value> {
    let row = |n: usize| {
        json!({
            "sku": format!("{prefix}-{n}"),
            "name": format!("Imported product number {n}, \"quoted\", with ünïcode ☕"),
            "description": "Described in a sentence of about a hundred characters, as a catalogue of a wholesaler might.",
            "price": format!("{}.{:02}", n % 1_000, n % 100),
            "onHand": n % 50,
        })
    };
    (0..count).map(row).collect()
}

async fn import(api: &Api, inputs: &[Value]) -> Value {
    let import = format!("mutation($inputs: [ProductInput!]!) {{ importProducts(inputs: $inputs) {{ {PRODUCT} }} }}");
    api.send(&import, json!({ "inputs": inputs })).await
}

async fn count(world: &World, table: &str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_products_come_in_one_call() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let inputs = rows("BULK", 10_000);
    let answer = import(&api, &inputs).await;
    assert_eq!(answer["errors"], Value::Null);
    let products = answer["data"]["importProducts"].as_array().unwrap();
    assert_eq!(products.len(), 10_000);
    for (product, input) in products.iter().zip(&inputs) {
        assert_eq!(product["sku"], input["sku"]);
        assert_eq!(product["onHand"], input["onHand"]);
        assert_eq!(product["price"], input["price"]);
    }
    assert_eq!(count(&world, "outbox").await, 10_000);
    assert_eq!(count(&world, "movements").await, 10_000 - 200);
    assert_eq!(api.product(&products[4711]["id"]).await, products[4711]);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_import_takes_as_many_statements_however_long_it_is() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let (few, answer) = statements(import(&api, &rows("FEW", 2))).await;
    assert_eq!(answer["errors"], Value::Null);
    let (many, answer) = statements(import(&api, &rows("MANY", 2_000))).await;
    assert_eq!(answer["errors"], Value::Null);
    assert_eq!(few, many);
    assert!(few.len() >= 3, "they are heard: {few:?}");
}

#[tokio::test]
async fn the_rows_that_are_wrong_are_named_and_none_is_added() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let mut inputs = rows("ROW", 6);
    inputs[1]["price"] = json!("1,50");
    inputs[1]["name"] = json!("");
    inputs[3]["sku"] = json!("ROW-0");
    inputs[5]["onHand"] = json!(-1);
    let answer = import(&api, &inputs).await;
    let error = &answer["errors"][0];
    assert_eq!(error["message"], "4 things are wrong with the rows");
    let expected = json!({
        "code": "INVALID",
        "rows": [
            { "row": 1, "field": "name", "message": "name is empty" },
            { "row": 1, "field": "price", "message": "price is not a decimal number such as \"39.90\"" },
            { "row": 3, "field": "sku", "message": "sku \"ROW-0\" is also that of row 0" },
            { "row": 5, "field": "onHand", "message": "onHand must not be negative" },
        ],
    });
    assert_eq!(error["extensions"], expected);
    assert_eq!(count(&world, "products").await, 0);
    assert_eq!(count(&world, "outbox").await, 0);
}

#[tokio::test]
async fn the_rows_whose_sku_is_taken_are_named_and_none_is_added() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let there = import(&api, &[rows("ROW", 4).remove(1), rows("ROW", 4).remove(3)]).await;
    assert_eq!(there["errors"], Value::Null);
    let answer = import(&api, &rows("ROW", 4)).await;
    let error = &answer["errors"][0];
    assert_eq!(error["message"], "2 of the SKUs are taken");
    let expected = json!({
        "code": "CONFLICT",
        "rows": [
            { "row": 1, "field": "sku", "message": "sku \"ROW-1\" is taken" },
            { "row": 3, "field": "sku", "message": "sku \"ROW-3\" is taken" },
        ],
    });
    assert_eq!(error["extensions"], expected);
    let listed = api.ask("{ products { nodes { sku } } }", json!({})).await;
    assert_eq!(nodes(&listed, "sku"), ["ROW-1", "ROW-3"]);
    assert_eq!(count(&world, "outbox").await, 2);
}

#[tokio::test]
async fn what_is_wrong_is_listed_up_to_a_hundred_entries() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let mut inputs = rows("ROW", 10_000);
    for input in &mut inputs {
        input["price"] = json!("-1");
    }
    let answer = import(&api, &inputs).await;
    assert_eq!(answer["errors"][0]["message"], "10000 things are wrong with the rows");
    assert_eq!(answer["errors"][0]["extensions"]["rows"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn an_import_has_a_longest_length() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let short = json!({ "sku": "A", "name": "A", "price": 1 });
    let answer = import(&api, &vec![short; 10_001]).await;
    assert_eq!(answer["errors"][0]["message"], "10001 rows are more than 10000");
    assert_eq!(answer["errors"][0]["extensions"], json!({ "code": "INVALID", "max": 10_000 }));
    let none = import(&api, &[]).await;
    assert_eq!(none, json!({ "data": { "importProducts": [] } }));
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_found_in_its_row() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    for (field, value) in [
        ("name", json!(5)),
        ("onHand", json!("many")),
        ("onHand", json!(1.5)),
        ("price", json!(null)),
        ("colour", json!("red")),
    ] {
        let mut inputs = rows("ROW", 3);
        inputs[2][field] = value;
        let answer = import(&api, &inputs).await;
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "INVALID", "{error}");
        assert!(error["message"].as_str().unwrap().contains("inputs.2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_share_skus_do_not_lock_each_other_out() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let forward = rows("ROW", 3_000);
    let backward: Vec<Value> = forward.iter().rev().cloned().collect();
    let (first, second) = tokio::join!(import(&api, &forward), import(&api, &backward));
    let codes = [&first["errors"][0]["extensions"]["code"], &second["errors"][0]["extensions"]["code"]];
    assert!(codes.contains(&&json!("CONFLICT")) && codes.contains(&&Value::Null), "{codes:?}");
    assert_eq!(count(&world, "products").await, 3_000);
}
