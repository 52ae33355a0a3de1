//! The way of an order through both services, and what each of them tells of it.

use serde_json::{Value, json};

use crate::service::{becomes, eventually};
use crate::shop::{Shop, text};

#[tokio::test]
async fn an_order_is_confirmed_and_both_services_tell_the_same() {
    let shop = Shop::open().await;
    let product = shop.product("9.90", 10).await;
    let placed = shop.place(&product, 3).await;
    let amounts = json!(["29.70", "5.94", "35.64"]);
    assert_eq!(json!([placed["subtotal"], placed["fee"], placed["total"]]), amounts);
    assert_eq!(placed["status"], "PENDING");
    let id = text(&placed["id"]);
    let order = shop.order_once(&id, "CONFIRMED").await;

    let hold = shop.hold(&id).await;
    assert_eq!(hold["status"], "HELD");
    assert_eq!(hold["expiresAt"], order["expiresAt"]);
    assert_eq!(hold["items"], json!([{"productId": product, "quantity": 3}]));
    let holds = "query($id: ID!) { holds(productId: $id, status: HELD) { nodes { orderId } } }";
    let held = shop.inventory.ask(holds, json!({"id": product})).await;
    assert_eq!(held["nodes"], json!([{"orderId": id}]));
    assert_eq!(order["items"], json!([{"productId": product, "quantity": 3, "unitPrice": "9.90"}]));
    assert_eq!(shop.levels(&product).await, json!({"onHand": 10, "reserved": 3, "available": 7}));
    assert_eq!(order["reason"], Value::Null);
    assert_eq!(steps(&order), [("PENDING", "createOrder"), ("CONFIRMED", "StockReserved")]);
    let [created, confirmed] = [&order["timeline"][0], &order["timeline"][1]];
    assert_eq!(created["traceId"], confirmed["traceId"], "one trace through both services");
    assert!(text(&created["messageId"]) != text(&confirmed["messageId"]));
}

#[tokio::test]
async fn an_order_of_more_than_there_is_is_cancelled_with_what_is_short() {
    let shop = Shop::open().await;
    let (scarce, plenty) = (shop.product("1.00", 2).await, shop.product("1.00", 100).await);
    let items = json!([{"productId": plenty, "quantity": 1}, {"productId": scarce, "quantity": 5}]);
    let placed = shop.orders.ask(crate::shop::CREATE_ORDER, json!({"input": {"items": items}})).await;
    let id = text(&placed["id"]);
    let order = shop.order_once(&id, "CANCELLED").await;

    assert!(text(&order["reason"]).starts_with("Insufficient stock"), "{order}");
    assert_eq!(order["shortages"], json!([{"productId": scarce, "requested": 5, "available": 2}]));
    assert_eq!(steps(&order), [("PENDING", "createOrder"), ("CANCELLED", "StockRejected")]);
    let hold = shop.hold(&id).await;
    assert_eq!(hold["status"], "REJECTED");
    assert_eq!([&hold["reason"], &hold["shortages"]], [&order["reason"], &order["shortages"]]);
    for (product, on_hand) in [(&scarce, 2), (&plenty, 100)] {
        assert_eq!(shop.levels(product).await, json!({"onHand": on_hand, "reserved": 0, "available": on_hand}));
    }
}

#[tokio::test]
async fn a_paid_order_leaves_the_shelf_and_a_refunded_one_comes_back() {
    let shop = Shop::open_with(&[("PAYMENT_DELAY_SECONDS", "0")]).await;
    let product = shop.product("9.90", 10).await;
    let id = text(&shop.place(&product, 3).await["id"]);
    shop.order_once(&id, "COMPLETED").await;
    becomes(json!({"onHand": 7, "reserved": 0, "available": 7}), async || shop.levels(&product).await).await;
    assert_eq!(shop.hold(&id).await["status"], "COMMITTED");
    let outstanding = async || shop.orders.ask("{ stuckOrders(olderThanSeconds: 0) { id } }", Value::Null).await;
    becomes(json!([]), outstanding).await;

    let refund = "mutation($id: ID!) { refundOrder(id: $id, reason: \"broken\") { status } }";
    assert_eq!(shop.orders.ask(refund, json!({"id": id})).await["status"], "REFUNDED");
    becomes(json!({"onHand": 10, "reserved": 0, "available": 10}), async || shop.levels(&product).await).await;
    becomes(json!([]), outstanding).await;
    assert_eq!(shop.hold(&id).await["status"], "RETURNED");
    let movements = "query($id: ID!) { movements(productId: $id, first: 9) { nodes { quantity reason orderId } } }";
    let moved = shop.inventory.ask(movements, json!({"id": product})).await;
    let returned = json!({"quantity": 3, "reason": "RETURNED", "orderId": id});
    let committed = json!({"quantity": -3, "reason": "COMMITTED", "orderId": id});
    assert_eq!([&moved["nodes"][0], &moved["nodes"][1]], [&returned, &committed]);
    let order = shop.order(&id).await;
    let expected = [
        ("PENDING", "createOrder"),
        ("CONFIRMED", "StockReserved"),
        ("COMPLETED", "paid"),
        ("REFUNDED", "refundOrder"),
    ];
    assert_eq!(steps(&order), expected);
}

#[tokio::test]
async fn orders_knows_the_prices_from_before_its_first_start_and_hears_of_every_edit() {
    let mut shop = Shop::closed(&[]);
    shop.inventory.start().await;
    let old = shop.unannounced_product("12.50", 1).await;
    shop.orders.start().await;
    assert_eq!(shop.unit_price(&old).await.as_deref(), Some("12.50"));

    let update = "mutation($id: ID!, $input: UpdateProductInput!) { updateProduct(id: $id, input: $input) { price } }";
    let input = json!({"expectedVersion": 1, "price": "99.95"});
    shop.inventory.ask(update, json!({"id": old, "input": input})).await;
    becomes(Some("99.95".to_owned()), async || shop.unit_price(&old).await).await;
    assert_eq!(shop.place(&old, 1).await["subtotal"], "99.95");

    let delete = "mutation($id: ID!) { deleteProduct(id: $id) { id } }";
    let new = shop.product("7.00", 1).await;
    shop.inventory.ask(delete, json!({"id": new})).await;
    eventually("orders no longer sells it", async || shop.unit_price(&new).await.is_none()).await;
}

/// Inventory was away for three days. What it finds in its queues then holds nothing.
#[tokio::test]
async fn an_order_that_was_given_up_holds_nothing_when_inventory_is_back() {
    let mut shop = Shop::open_with(&[("REASK_PERIOD_MS", "50"), ("PAYMENT_DELAY_SECONDS", "0")]).await;
    let product = shop.product("1.00", 10).await;
    shop.inventory.stop().await;
    let id = text(&shop.place(&product, 3).await["id"]);
    sqlx::query("update orders set updated_at = now() - interval '73 hours', overdue_at = now(), asks = 12")
        .execute(&shop.orders_pool().await)
        .await
        .unwrap();
    let given_up = shop.order_once(&id, "CANCELLED").await;
    assert_eq!(steps(&given_up), [("PENDING", "createOrder"), ("CANCELLED", "unanswered")]);

    shop.inventory.start().await;
    let has_ended = async || {
        let status = shop.hold(&id).await["status"].clone();
        status == "REJECTED" || status == "RELEASED"
    };
    eventually("inventory has heard of the order and its end", has_ended).await;
    becomes(json!({"onHand": 10, "reserved": 0, "available": 10}), async || shop.levels(&product).await).await;
    let outstanding = async || shop.orders.ask("{ stuckOrders(olderThanSeconds: 0) { id } }", Value::Null).await;
    becomes(json!([]), outstanding).await;
    let charges: i64 =
        sqlx::query_scalar("select count(*) from provider_charges").fetch_one(&shop.orders_pool().await).await.unwrap();
    assert_eq!(charges, 0);
    assert!(shop.run("ms-inventory", &["doctor"]).status.success());
}

#[tokio::test]
async fn what_was_sold_out_can_be_ordered_once_a_hold_has_run_out() {
    let shop = Shop::open_with(&[("HOLD_TTL_SECONDS", "1"), ("SWEEP_PERIOD_MS", "50")]).await;
    let product = shop.product("1.00", 1).await;
    let id = text(&shop.place(&product, 1).await["id"]);
    let order = shop.order_once(&id, "CANCELLED").await;

    let expected = [("PENDING", "createOrder"), ("CONFIRMED", "StockReserved"), ("CANCELLED", "expired")];
    assert_eq!(steps(&order), expected);
    assert_eq!(order["reason"], "The reservation expired");
    assert_eq!(shop.hold(&id).await["status"], "EXPIRED");
    assert_eq!(shop.levels(&product).await, json!({"onHand": 1, "reserved": 0, "available": 1}));
    let next = text(&shop.place(&product, 1).await["id"]);
    eventually("the next is confirmed", async || steps(&shop.order(&next).await).contains(&expected[1])).await;
}

/// The status and the cause of each step of an order.
fn steps(order: &Value) -> Vec<(&str, &str)> {
    let timeline = order["timeline"].as_array().unwrap();
    timeline.iter().map(|step| (step["status"].as_str().unwrap(), step["cause"].as_str().unwrap())).collect()
}
