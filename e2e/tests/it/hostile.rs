//! Messages that must not end the process, against the real program: a thread's stack is the program's business.

use dev::rabbitmq::{PASSWORD, USER};
use dev::testing::{RABBITMQ_UI_VARIABLE, Vhost};
use serde_json::{Value, json};

use crate::service::eventually;
use crate::shop::{Shop, text};

/// What fits into one frame of 128 KiB: an array in an array is 5 bytes.
const LEVELS: usize = 25_000;

#[tokio::test]
async fn a_header_nested_as_deep_as_a_frame_allows_ends_nobody() {
    let shop = Shop::open().await;
    let product = shop.product("1.00", 10).await;
    let order = json!({"event": "OrderCreated", "order_id": "NESTED", "items": [{"product_id": product.parse::<i64>().unwrap(), "quantity": 1}]});
    publish_with_header(&shop.vhost, "order.created", &order, &nested(LEVELS)).await;
    let hold = "query { hold(orderId: \"NESTED\") { status } }";
    eventually("the order is held", async || {
        let answer = shop.inventory.send(hold, &json!({})).await;
        answer.is_ok_and(|answer| answer["data"]["hold"]["status"] == "HELD")
    })
    .await;

    publish_with_header(&shop.vhost, "order.created", &json!({"not": "an event"}), &nested(LEVELS)).await;
    eventually("the other is dead-lettered", async || {
        let list = shop.run("ms-inventory", &["dead-letters", "list"]);
        String::from_utf8_lossy(&list.stdout).contains("missing field `event`")
    })
    .await;
    let order = shop.place(&product, 1).await;
    shop.order_once(&text(&order["id"]), "CONFIRMED").await;
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// By the management API, because a client library would have to nest as deep.
async fn publish_with_header(vhost: &Vhost, routing_key: &str, body: &Value, header: &str) {
    let ui = std::env::var(RABBITMQ_UI_VARIABLE).unwrap();
    let http = reqwest::Client::new();
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    let granted = http.put(format!("{ui}/api/permissions/{}/{USER}", vhost.name())).basic_auth(USER, Some(PASSWORD));
    assert!(granted.json(&all).send().await.unwrap().status().is_success());
    let payload = Value::String(body.to_string());
    let message = format!(
        r#"{{"properties":{{"headers":{{"x":{header}}}}},"routing_key":"{routing_key}","payload":{payload},"payload_encoding":"string"}}"#
    );
    let published = http.post(format!("{ui}/api/exchanges/{}/orders/publish", vhost.name()));
    let published = published.basic_auth(USER, Some(PASSWORD)).header("content-type", "application/json").body(message);
    let answer = published.send().await.unwrap().text().await.unwrap();
    assert_eq!(answer, r#"{"routed":true}"#);
}
