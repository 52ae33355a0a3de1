//! What a client of either service meets over HTTP.

use std::path::PathBuf;
use std::process::Command;

use dev::install::Need;
use dev::{playground, workspace};
use serde_json::{Value, json};

use crate::browser::INSTALL;
use crate::service::becomes;
use crate::shop::{CREATE_ORDER, Shop, printed};

#[tokio::test]
async fn the_official_audits_pass_against_each_service() {
    assert!(Need::Npm.is_met(), "there is no npm; {INSTALL}");
    let folder = workspace::root().unwrap().join("crates/graphql/tests/audits");
    let shop = Shop::open_with_accounts(&[]).await;
    playground::install_packages(shop.folder(), &folder, |_| ()).unwrap();
    for service in [&shop.inventory, &shop.orders, &shop.users] {
        let mut node = Command::new("node");
        let audits = node.arg("run.mjs").arg(format!("{}/graphql", service.url)).current_dir(&folder).output().unwrap();
        assert!(audits.status.success(), "{}", printed(&audits));
        assert!(printed(&audits).ends_with("61 of 61 audits passed\n"), "{}", printed(&audits));
    }
}

/// The tabs in the order of their names, each with its variables, as the playground opens with them.
#[tokio::test]
async fn every_tab_of_the_playground_is_answered_by_the_seeded_services() {
    let shop = Shop::seeded_with_accounts().await;
    for (name, service) in [("inventory", &shop.inventory), ("orders", &shop.orders), ("users", &shop.users)] {
        let tabs = tabs(name);
        assert!(tabs.len() >= 4, "{tabs:?}");
        for tab in tabs {
            let variables =
                std::fs::read_to_string(tab.with_extension("json")).map_or(Value::Null, |text| parse(&text));
            let answer = service.send(&std::fs::read_to_string(&tab).unwrap(), &variables).await.unwrap();
            assert!(answer["errors"].is_null() && answer["data"].is_object(), "{answer} to {}", tab.display());
        }
    }
    let order = "{ orders(first: 1) { nodes { items { productId quantity } } } }";
    let placed = shop.orders.ask(order, Value::Null).await;
    let items = json!([{"productId": "1", "quantity": 2}, {"productId": "2", "quantity": 1}]);
    assert_eq!(placed["nodes"][0]["items"], items, "the tab CreateOrder has placed it");
}

#[tokio::test]
async fn a_browser_gets_the_playground_of_each_service() {
    let shop = Shop::open_with_accounts(&[]).await;
    for service in [&shop.inventory, &shop.orders, &shop.users] {
        let page = service.get_as("/graphql", "text/html,application/xhtml+xml").await;
        assert!(page.contains("<title>GraphQL playground</title>"), "{page}");
        assert!(page.contains("/playground/assets/"), "{page}\nthe services were built before it: cargo dev test");
    }
}

#[tokio::test]
async fn ten_thousand_products_fit_into_one_request_and_all_reach_orders() {
    const ROWS: usize = 10_000;
    // A program that is not optimised takes long for it, and on a busy machine longer.
    let patient = [("HTTP_REQUEST_TIMEOUT_SECONDS", "100"), ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "60")];
    let shop = Shop::open_with(&patient).await;
    let row = |n| json!({"sku": format!("SKU-{n}"), "name": "Thing", "description": "x".repeat(300), "price": "9.90"});
    let inputs: Vec<Value> = (0..ROWS).map(row).collect();
    let import = "mutation($inputs: [ProductInput!]!) { importProducts(inputs: $inputs) { id } }";
    let imported = shop.inventory.ask(import, json!({"inputs": inputs})).await;
    assert_eq!(imported.as_array().map(Vec::len), Some(ROWS));

    let pool = shop.orders_pool().await;
    let known = async || sqlx::query_scalar("select count(*) from catalogue").fetch_one(&pool).await.unwrap();
    becomes(ROWS as i64, known).await;
    // The largest order there may be, of as many products.
    let item = |product: &Value| json!({"productId": product["id"], "quantity": 1});
    let items: Vec<Value> = imported.as_array().unwrap().iter().take(1_000).map(item).collect();
    let order = shop.orders.ask(CREATE_ORDER, json!({"input": {"items": items}})).await;
    assert_eq!(order["subtotal"], "9900.00");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_the_next_request_is_answered() {
    let shop = Shop::open().await;
    for service in [&shop.inventory, &shop.orders] {
        let huge = format!(r#"{{"query": "{{ __typename }}", "extensions": {{"x": "{}"}}}}"#, "x".repeat(10_000_000));
        assert_eq!(service.post(huge).await.unwrap().status(), 413);
        assert_eq!(service.ask("{ __typename }", Value::Null).await, "Query");
    }
}

fn tabs(service: &str) -> Vec<PathBuf> {
    let folder = workspace::root().unwrap().join("playground/operations").join(service);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut tabs: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|name| name == "graphql")).collect();
    tabs.sort();
    tabs
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"))
}
