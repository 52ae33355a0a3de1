//! One of the two is down: the other goes on, and nothing is forgotten.

use serde_json::Value;

use crate::service::{becomes, eventually};
use crate::shop::{Shop, text};

#[tokio::test]
async fn orders_are_taken_while_inventory_is_down_and_confirmed_on_its_return() {
    let mut shop = Shop::open().await;
    let product = shop.product("1.00", 10).await;
    shop.inventory.stop().await;

    let mut ids = Vec::new();
    for _ in 0..3 {
        let placed = shop.place(&product, 1).await;
        assert_eq!(placed["status"], "PENDING");
        ids.push(text(&placed["id"]));
    }
    all_sent(&shop).await;
    for id in &ids {
        assert_eq!(shop.order(id).await["status"], "PENDING");
    }
    shop.inventory.start().await;
    for id in &ids {
        shop.order_once(id, "CONFIRMED").await;
    }
    assert_eq!(shop.levels(&product).await["reserved"], 3);
}

#[tokio::test]
async fn answers_wait_while_orders_is_down_and_are_applied_on_its_return() {
    let mut shop = Shop::open().await;
    let product = shop.product("1.00", 2).await;
    shop.inventory.stop().await;
    let [held, rejected] = [text(&shop.place(&product, 2).await["id"]), text(&shop.place(&product, 1).await["id"])];
    all_sent(&shop).await;
    shop.orders.stop().await;

    shop.inventory.start().await;
    becomes("HELD".into(), async || status(&shop.hold(&held).await)).await;
    becomes("REJECTED".into(), async || status(&shop.hold(&rejected).await)).await;
    shop.orders.start().await;
    shop.order_once(&held, "CONFIRMED").await;
    shop.order_once(&rejected, "CANCELLED").await;
}

/// Waits until the broker has every event of orders.
async fn all_sent(shop: &Shop) {
    let pool = shop.orders_pool().await;
    eventually("the outbox is empty", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&pool).await.unwrap();
        left == 0
    })
    .await;
}

fn status(hold: &Value) -> String {
    hold["status"].as_str().unwrap_or_default().to_owned()
}
