//! Products are added, edited and deleted.

use ms_inventory::hold;
use ms_inventory::stock::Level;
use serde_json::{Value, json};

use crate::graphql_client::{Api, PRODUCT, nodes};
use crate::holds::cancel;
use crate::world::{ADMIN, World};

fn kettle() -> Value {
    json!({ "sku": "KETTLE-1", "name": "Kettle", "description": "Boils.", "price": "39.9", "onHand": 5 })
}

fn id(product: &Value) -> i64 {
    product["id"].as_str().unwrap().parse().unwrap()
}

async fn update(api: &Api, id: &Value, input: Value) -> Value {
    let update = format!(
        "mutation($id: ID!, $input: UpdateProductInput!) {{ updateProduct(id: $id, input: $input) {{ {PRODUCT} }} }}"
    );
    api.send(&update, json!({ "id": id, "input": input })).await
}

const DELETE: &str = "mutation($id: ID!) { deleteProduct(id: $id) { id sku onHand reserved version } }";

#[tokio::test]
async fn a_product_is_created_with_its_stock() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    assert_eq!(created["price"], "39.90");
    assert_eq!(created["version"], 1);
    assert_eq!([&created["onHand"], &created["reserved"], &created["available"]], [5, 0, 5]);
    assert_eq!(created["createdAt"], created["updatedAt"]);

    assert_eq!(api.product(&created["id"]).await, created);
    let by_sku = format!("{{ product(sku: \"KETTLE-1\") {{ {PRODUCT} }} }}");
    assert_eq!(api.ask(&by_sku, json!({})).await, created);
    let movements =
        api.ask("{ movements { nodes { productId quantity reason note actor orderId } } }", json!({})).await;
    let received = json!({ "productId": created["id"], "quantity": 5, "reason": "RECEIVED", "note": "", "actor": ADMIN.to_string(), "orderId": null });
    assert_eq!(movements["nodes"], json!([received]));
    let changed = json!({ "event": "ProductChanged", "product_id": id(&created), "sku": "KETTLE-1", "name": "Kettle", "price": "39.90", "version": 1 });
    assert_eq!(world.told().await, [changed]);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_product_may_come_without_stock_and_description() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(json!({ "sku": "☕-1", "name": "Žluťoučký kůň 🐎", "price": 7 })).await;
    assert_eq!(created["description"], "");
    assert_eq!(created["price"], "7.00");
    assert_eq!(created["onHand"], 0);
    assert_eq!(created["name"], "Žluťoučký kůň 🐎");
    assert_eq!(api.ask("{ movements { nodes { id } } }", json!({})).await["nodes"], json!([]));
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_bad_product_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    for (field, value, message) in [
        ("sku", json!(""), "sku is empty"),
        ("sku", json!(" A"), "sku begins or ends with white space"),
        ("sku", json!("é".repeat(65)), "sku is longer than 64 characters"),
        ("sku", json!("A\u{7}"), "sku contains a control character"),
        ("name", json!("\n"), "name contains a control character"),
        ("name", json!("n".repeat(1_000_000)), "name is longer than 200 characters"),
        ("description", json!("d".repeat(10_001)), "description is longer than 10000 characters"),
        ("price", json!("-0.01"), "price must not be negative"),
        ("price", json!("0.001"), "price has more than 2 decimals"),
        ("price", json!(0.1 + 0.2), "price has more than 2 decimals"),
        ("price", json!("10000000000"), "price must be less than 10000000000"),
        ("price", json!("39,90"), "price is not a decimal number such as \"39.90\""),
        ("onHand", json!(-1), "onHand must not be negative"),
        ("onHand", json!(1_000_000_001), "onHand must be at most 1000000000"),
    ] {
        let mut input = kettle();
        input[field] = value;
        let refusal = api.refused_create("INVALID", input).await;
        assert_eq!(refusal["message"], message);
        assert_eq!(refusal["extensions"]["fields"], json!([{ "field": field, "message": message }]));
    }
    let all = json!({ "sku": "", "name": "", "price": "free", "onHand": -1 });
    let refusal = api.refused_create("INVALID", all).await;
    assert_eq!(refusal["extensions"]["fields"].as_array().unwrap().len(), 4, "{refusal}");
    assert_eq!(world.told().await, [json!(null); 0]);
    let count: i64 = sqlx::query_scalar("select count(*) from products").fetch_one(&world.pool).await.unwrap();
    assert_eq!(count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_the_same_sku_one_wins() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let all = (0..20).map(|_| api.send(create, json!({ "input": kettle() })));
    let answers = futures::future::join_all(all).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["errors"].is_null());
    assert_eq!((won.len(), lost.len()), (1, 19));
    for answer in lost {
        assert_eq!(answer["errors"][0]["message"], "the SKU \"KETTLE-1\" is taken");
        assert_eq!(answer["errors"][0]["extensions"], json!({ "code": "CONFLICT", "field": "sku" }));
    }
    assert_eq!(world.told().await.len(), 1);
}

#[tokio::test]
async fn an_edit_needs_the_version_its_editor_saw() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    let id = &created["id"];
    let edited = update(&api, id, json!({ "expectedVersion": 1, "price": "35", "sku": "KETTLE-2" })).await;
    let edited = &edited["data"]["updateProduct"];
    assert_eq!(edited["version"], 2);
    assert_eq!(edited["price"], "35.00");
    assert_eq!(edited["sku"], "KETTLE-2");
    for unchanged in ["id", "name", "description", "onHand", "createdAt"] {
        assert_eq!(edited[unchanged], created[unchanged]);
    }
    assert_ne!(edited["updatedAt"], created["updatedAt"]);
    assert_eq!(&api.product(id).await, edited);

    let stale = update(&api, id, json!({ "expectedVersion": 1, "name": "Pot" })).await;
    let extensions = &stale["errors"][0]["extensions"];
    assert_eq!(extensions["code"], "CONFLICT");
    let current = &extensions["current"];
    assert_eq!(current["version"], 2);
    for field in ["sku", "name", "description", "price"] {
        assert_eq!(current[field], edited[field]);
    }
    assert_eq!(&api.product(id).await, edited);
    let versions: Vec<_> = world.told().await.iter().map(|event| event["version"].clone()).collect();
    assert_eq!(versions, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_edits_of_one_version_one_wins() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    let edits =
        (0..20).map(|n| update(&api, &created["id"], json!({ "expectedVersion": 1, "name": format!("Kettle {n}") })));
    let answers = futures::future::join_all(edits).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer["errors"].is_null()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(api.product(&created["id"]).await, won[0]["data"]["updateProduct"]);
    assert_eq!(world.told().await.len(), 2);
}

#[tokio::test]
async fn an_edit_that_cannot_be_is_refused() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    api.create(json!({ "sku": "POT-1", "name": "Pot", "price": 1 })).await;
    for (id, input, code, message) in [
        (json!(4711), json!({ "expectedVersion": 1, "name": "Pot" }), "NOT_FOUND", "there is no product 4711"),
        (
            created["id"].clone(),
            json!({ "expectedVersion": 1, "sku": "POT-1" }),
            "CONFLICT",
            "the SKU \"POT-1\" is taken",
        ),
        (created["id"].clone(), json!({ "expectedVersion": 1 }), "INVALID", "input changes nothing"),
        (
            created["id"].clone(),
            json!({ "expectedVersion": 1, "price": "0.005" }),
            "INVALID",
            "price has more than 2 decimals",
        ),
        (
            created["id"].clone(),
            json!({ "expectedVersion": 1, "price": "much" }),
            "INVALID",
            "price is not a decimal number such as \"39.90\"",
        ),
        (
            created["id"].clone(),
            json!({ "expectedVersion": 1, "name": " " }),
            "INVALID",
            "name begins or ends with white space",
        ),
        (
            created["id"].clone(),
            json!({ "expectedVersion": -1, "name": "Pot" }),
            "CONFLICT",
            "product 1 is at version 1, which is not the expected one",
        ),
    ] {
        let answer = update(&api, &id, input).await;
        assert_eq!(answer["errors"][0]["message"], message);
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{message}");
    }
    assert_eq!(api.product(&created["id"]).await, created);
    assert_eq!(world.told().await.len(), 2);
}

#[tokio::test]
async fn a_product_is_not_deleted_while_it_is_held() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    world.hold([("ORD-1", vec![(id(&created), 2)])]).await;
    let refusal = api.refused("CONFLICT", DELETE, json!({ "id": created["id"] })).await;
    assert_eq!(refusal["message"], "product 1 cannot be deleted while 2 of it are held for orders");
    assert_eq!(refusal["extensions"]["current"], json!({ "onHand": 5, "reserved": 2, "available": 3 }));
    assert_eq!(world.level(id(&created)).await, Level { on_hand: 5, reserved: 2 });

    cancel(&world, &["ORD-1"]).await;
    let deleted = api.ask(DELETE, json!({ "id": created["id"] })).await;
    assert_eq!(deleted, json!({ "id": created["id"], "sku": "KETTLE-1", "onHand": 0, "reserved": 0, "version": 2 }));
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_deleted_product_is_found_nowhere_and_its_history_stays() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let created = api.create(kettle()).await;
    let product_id = &created["id"];
    world.hold([("ORD-1", vec![(id(&created), 2)])]).await;
    cancel(&world, &["ORD-1"]).await;
    api.ask(DELETE, json!({ "id": product_id })).await;

    assert_eq!(api.product(product_id).await, Value::Null);
    assert_eq!(api.ask("{ product(sku: \"KETTLE-1\") { id } }", json!({})).await, Value::Null);
    let listed = api.ask("{ products(filter: {search: \"kettle\"}) { totalCount nodes { id } } }", json!({})).await;
    assert_eq!(listed, json!({ "totalCount": 0, "nodes": [] }));
    api.refused("NOT_FOUND", DELETE, json!({ "id": product_id })).await;
    let adjust = "mutation($id: ID!) { adjustStock(input: {productId: $id, delta: 1}) { id } }";
    api.refused("NOT_FOUND", adjust, json!({ "id": product_id })).await;
    let edited = update(&api, product_id, json!({ "expectedVersion": 2, "name": "Pot" })).await;
    assert_eq!(edited["errors"][0]["extensions"]["code"], "NOT_FOUND");

    let movements = api
        .ask(
            "query($id: ID!) { movements(productId: $id) { nodes { quantity reason note product { id } } } }",
            json!({ "id": product_id }),
        )
        .await;
    assert_eq!(
        movements["nodes"],
        json!([
            { "quantity": -5, "reason": "ADJUSTED", "note": "product deleted", "product": null },
            { "quantity": 5, "reason": "RECEIVED", "note": "", "product": null },
        ])
    );
    let hold =
        api.ask("{ hold(orderId: \"ORD-1\") { status items { productId quantity product { id } } } }", json!({})).await;
    assert_eq!(
        hold,
        json!({ "status": "RELEASED", "items": [{ "productId": product_id, "quantity": 2, "product": null }] })
    );
    let told = world.told().await;
    let deleted = told.iter().find(|event| event["event"] == "ProductDeleted").unwrap();
    assert_eq!(
        *deleted,
        json!({ "event": "ProductDeleted", "product_id": id(&created), "sku": "KETTLE-1", "name": "Kettle", "price": "39.90", "version": 2 })
    );

    let again = api.create(kettle()).await;
    assert_ne!(again["id"], created["id"]);
    assert_eq!(nodes(&api.ask("{ products { nodes { id } } }", json!({})).await, "id"), [again["id"].clone()]);
    world.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_either_deleted_or_held() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let mut deleted = 0;
    for round in 0..30 {
        let product =
            api.create(json!({ "sku": format!("S-{round}"), "name": "Thing", "price": 1, "onHand": 1 })).await;
        let order = format!("ORD-{round}");
        let (answers, deletion) = tokio::join!(
            world.hold([(order, vec![(id(&product), 1)])]),
            api.send(DELETE, json!({ "id": product["id"] })),
        );
        let held = matches!(answers[..], [hold::Answer::Reserved { .. }]);
        assert_eq!(held, !deletion["errors"].is_null(), "{answers:?} and {deletion}");
        deleted += usize::from(!held);
    }
    println!("{deleted} of 30 deleted");
    world.assert_adds_up().await;
}
