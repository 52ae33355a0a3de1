//! The catalogue is read page by page, in every order and with every filter.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::graphql_client::{Api, nodes};
use crate::world::World;

const PAGE: &str =
    "query($first: Int, $after: String, $last: Int, $before: String, $filter: ProductFilter, $orderBy: ProductOrder) {
    products(first: $first, after: $after, last: $last, before: $before, filter: $filter, orderBy: $orderBy) {
        totalCount
        nodes { id sku }
        edges { cursor }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
}";

/// 60 products with many equal names, prices and times, and SKUs in no order.
async fn a_catalogue() -> World {
    let world = World::new().await;
    sqlx::query(
        "with product as (
             insert into products (sku, name, price, updated_at)
             select 'S' || n * 37 % 61, 'Name ' || n * 7 % 5, n * 3 % 4, now() - make_interval(secs => n * 11 % 6)
             from generate_series(1, 60) as n
             returning id
         )
         insert into stock (product_id, on_hand)
         select id, 0 from product",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    world
}

async fn expected(world: &World, column: &str, direction: &str) -> Vec<Value> {
    let sql = format!("select id from products order by {column} {direction}, id {direction}");
    let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&world.pool).await.unwrap();
    ids.into_iter().map(|id| Value::from(id.to_string())).collect()
}

/// Reads all pages of a size, from the front by `first` and `after`, or from the end by `last` and `before`.
async fn walk(api: &Api, order: &Value, size: usize, backward: bool) -> Vec<Value> {
    let (size_name, cursor_name, more, end) = if backward {
        ("last", "before", "hasPreviousPage", "startCursor")
    } else {
        ("first", "after", "hasNextPage", "endCursor")
    };
    let mut read = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = api.ask(PAGE, json!({ size_name: size, cursor_name: cursor, "orderBy": order })).await;
        let ids = nodes(&page, "id");
        assert!(ids.len() <= size);
        read = if backward { [ids, read].concat() } else { [read, ids].concat() };
        cursor = page["pageInfo"][end].clone();
        if page["pageInfo"][more] == false {
            return read;
        }
    }
}

#[tokio::test]
async fn the_pages_of_every_order_are_the_whole_order() {
    let world = a_catalogue().await;
    let api = Api::serve(&world.connections).await;
    for (field, column) in
        [("ID", "id"), ("NAME", "name"), ("SKU", "sku"), ("PRICE", "price"), ("UPDATED_AT", "updated_at")]
    {
        for direction in ["ASC", "DESC"] {
            let order = json!({ "field": field, "direction": direction });
            let expected = expected(&world, column, direction).await;
            assert_eq!(expected.len(), 60);
            for size in [7, 20, 60, 100] {
                for backward in [false, true] {
                    let read = walk(&api, &order, size, backward).await;
                    assert_eq!(read, expected, "{order} in pages of {size}, backward: {backward}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_page_lies_between_two_cursors() {
    let world = a_catalogue().await;
    let api = Api::serve(&world.connections).await;
    for direction in ["ASC", "DESC"] {
        let order = json!({ "field": "PRICE", "direction": direction });
        let all = api.ask(PAGE, json!({ "first": 60, "orderBy": order })).await;
        let ids = nodes(&all, "id");
        let cursor = |index: usize| all["edges"][index]["cursor"].clone();
        let between = json!({ "after": cursor(9), "before": cursor(20), "orderBy": order });
        let page = api.ask(PAGE, between.clone()).await;
        assert_eq!(nodes(&page, "id"), ids[10..20]);
        let mut ends = between;
        ends["first"] = json!(3);
        let page = api.ask(PAGE, ends.clone()).await;
        assert_eq!(nodes(&page, "id"), ids[10..13]);
        assert_eq!([&page["pageInfo"]["hasPreviousPage"], &page["pageInfo"]["hasNextPage"]], [true, true]);
        ends["first"] = json!(null);
        ends["last"] = json!(3);
        assert_eq!(nodes(&api.ask(PAGE, ends).await, "id"), ids[17..20]);
    }
}

#[tokio::test]
async fn what_comes_and_goes_does_not_shift_the_next_page() {
    let world = a_catalogue().await;
    let api = Api::serve(&world.connections).await;
    let order = json!({ "field": "SKU" });
    let first = api.ask(PAGE, json!({ "first": 10, "orderBy": order })).await;
    let expected = api.ask(PAGE, json!({ "first": 20, "orderBy": order })).await;
    api.ask("mutation($id: ID!) { deleteProduct(id: $id) { id } }", json!({ "id": first["nodes"][9]["id"] })).await;
    api.create(json!({ "sku": "A", "name": "Before all others", "price": 0 })).await;
    let after = &first["pageInfo"]["endCursor"];
    let second = api.ask(PAGE, json!({ "first": 10, "after": after, "orderBy": order })).await;
    assert_eq!(nodes(&second, "id"), nodes(&expected, "id")[10..]);
}

#[tokio::test]
async fn filters_hold_together() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let mut ids = Vec::new();
    for (sku, name, price, on_hand) in [
        ("KETTLE-1", "Kettle", "39.90", 5),
        ("kettle_2", "Pot, 50% off", "12.50", 0),
        ("TEA-3", "Žluťoučký čaj \\ tea", "7", 100),
        ("X-4", "A KETTLE'S LID", "0", 2),
    ] {
        ids.push(
            api.create(json!({ "sku": sku, "name": name, "price": price, "onHand": on_hand })).await["id"].clone(),
        );
    }
    for (filter, expected) in [
        (json!({}), vec![0, 1, 2, 3]),
        (json!({ "search": "kettle" }), vec![0, 1, 3]),
        (json!({ "search": "" }), vec![0, 1, 2, 3]),
        (json!({ "search": "e_2" }), vec![1]),
        (json!({ "search": "%" }), vec![1]),
        (json!({ "search": "_" }), vec![1]),
        (json!({ "search": "\\" }), vec![2]),
        (json!({ "search": "' or 1=1 --" }), vec![]),
        (json!({ "search": "luťoučký" }), vec![2]),
        (json!({ "skus": ["X-4", "KETTLE-1", "none"] }), vec![0, 3]),
        (json!({ "skus": [] }), vec![]),
        (json!({ "ids": [ids[2], 4711, ids[1]] }), vec![1, 2]),
        (json!({ "minAvailable": 1 }), vec![0, 2, 3]),
        (json!({ "minAvailable": 5 }), vec![0, 2]),
        (json!({ "priceMin": "7", "priceMax": 12.5 }), vec![1, 2]),
        (
            json!({ "search": "KETTLE", "minAvailable": 1, "priceMax": "39.90", "skus": ["KETTLE-1", "kettle_2"] }),
            vec![0],
        ),
    ] {
        let page = api.ask(PAGE, json!({ "filter": filter })).await;
        let expected: Vec<Value> = expected.into_iter().map(|index: usize| ids[index].clone()).collect();
        assert_eq!(nodes(&page, "id"), expected, "{filter}");
        assert_eq!(page["totalCount"], expected.len(), "{filter}");
    }
    let one = api.ask(PAGE, json!({ "first": 1, "filter": { "search": "kettle" } })).await;
    assert_eq!(one["totalCount"], 3);
}

#[tokio::test]
async fn a_page_that_cannot_be_is_refused() {
    let world = a_catalogue().await;
    let api = Api::serve(&world.connections).await;
    let by_name = api.ask(PAGE, json!({ "first": 1, "orderBy": { "field": "NAME" } })).await;
    let of_another_order = by_name["pageInfo"]["endCursor"].clone();
    let of_another_list =
        api.ask("{ movements { pageInfo { endCursor } } holds { pageInfo { endCursor } } }", json!({})).await;
    assert_eq!(of_another_list["pageInfo"]["endCursor"], Value::Null);
    for (variables, message) in [
        (json!({ "first": -1 }), "first must be between 0 and 100"),
        (json!({ "first": 101 }), "first must be between 0 and 100"),
        (json!({ "last": i32::MIN }), "last must be between 0 and 100"),
        (json!({ "first": 1, "last": 1 }), "first and last cannot be used together"),
        (json!({ "after": "nonsense" }), "after is not a cursor of this list"),
        (json!({ "after": "" }), "after is not a cursor of this list"),
        (json!({ "before": "x".repeat(1_000_000) }), "before is not a cursor of this list"),
        (json!({ "after": of_another_order }), "after is not a cursor of this order"),
        (json!({ "filter": { "search": "x".repeat(201) } }), "search is longer than 200 characters"),
        (json!({ "filter": { "skus": vec!["x"; 1_001] } }), "skus has more than 1000 entries"),
        (json!({ "filter": { "ids": vec![1; 1_001] } }), "ids has more than 1000 entries"),
        (json!({ "filter": { "priceMin": "cheap" } }), "priceMin is not a decimal number such as \"39.90\""),
    ] {
        let refusal = api.refused("INVALID", PAGE, variables).await;
        assert_eq!(refusal["message"], message);
    }
    let empty = api.ask(PAGE, json!({ "first": 0 })).await;
    assert_eq!(empty["nodes"], json!([]));
    assert_eq!(empty["totalCount"], 60);
}
