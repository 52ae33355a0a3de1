//! The programs beside the services, as a person uses them.

use std::cell::Cell;
use std::process::Output;

use events::queues;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::service::{becomes, eventually};
use crate::shop::{Shop, printed};

#[tokio::test]
async fn seed_data_again_changes_nothing() {
    let shop = Shop::closed(&[]);
    let first = shop.run("seed-data", &[]);
    assert!(first.status.success(), "{}", printed(&first));
    let pool = shop.inventory_pool().await;
    let all = "select jsonb_agg(to_jsonb(row) order by row)::text from (
        select products.*, on_hand, reserved, (select count(*) from movements), (select count(*) from outbox) as events
        from products join stock on product_id = id
    ) as row";
    let seeded: String = sqlx::query_scalar(all).fetch_one(&pool).await.unwrap();

    let second = shop.run("seed-data", &[]);
    assert!(second.status.success(), "{}", printed(&second));
    let list = |output: &Output| {
        let printed = printed(output);
        printed.lines().filter(|line| !line.ends_with("added")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(list(&first).len() > 10, "{}", printed(&first));
    assert_eq!(list(&first), list(&second));
    assert_eq!(sqlx::query_scalar::<_, String>(all).fetch_one(&pool).await.unwrap(), seeded);
}

#[tokio::test]
async fn customers_order_pay_cancel_and_are_refunded_until_all_orders_have_ended() {
    let shop = Shop::open_with_accounts(&[("PAYMENT_DELAY_SECONDS", "0"), ("PAYMENT_PERIOD_MS", "50")]).await;
    shop.product("1.00", 100).await;
    let placed = shop.run("place-orders", &["--customers", "5", "--orders", "30"]);
    assert!(placed.status.success(), "{}", printed(&placed));
    let last = printed(&placed)
        .lines()
        .filter(|line| line.trim_start().starts_with(char::is_numeric))
        .nth_back(1)
        .unwrap()
        .to_owned();
    let counts: Vec<u32> = last.split_whitespace().skip(1).map(|count| count.parse().unwrap()).collect();
    // Five of these thirty are to be refunded; those that are to be cancelled may be paid before.
    assert_eq!((counts[0], counts[1], counts[3], counts.iter().sum::<u32>()), (0, 0, 5, 30), "{}", printed(&placed));
    assert!(printed(&placed).contains("30 orders placed"), "{}", printed(&placed));
}

#[tokio::test]
async fn the_doctor_names_the_product_that_does_not_add_up() {
    let shop = Shop::closed(&[]);
    shop.run("seed-data", &[]);
    let healthy = shop.run("ms-inventory", &["doctor"]);
    assert!(healthy.status.success(), "{}", printed(&healthy));

    let pool = shop.inventory_pool().await;
    sqlx::query("update stock set on_hand = on_hand + 1 where product_id = 3").execute(&pool).await.unwrap();
    sqlx::query("update stock set reserved = 2 where product_id = 5").execute(&pool).await.unwrap();
    let ill = shop.run("ms-inventory", &["doctor"]);
    assert_eq!(ill.status.code(), Some(1), "{}", printed(&ill));
    let named: Vec<String> =
        printed(&ill).lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).take(2).collect();
    assert_eq!(named, ["product 3", "product 5"], "{}", printed(&ill));
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_purged() {
    let shop = Shop::open().await;
    let product: i64 = shop.product("1.00", 10).await.parse().unwrap();
    let letters = DeadLetters(&shop);
    letters.become_so_many(0).await;

    publish(&shop, "orders", "order.created", "no JSON at all").await;
    publish(&shop, "orders", "order.cancelled", r#"{"event":"OrderCancelled"}"#).await;
    // As if the broker had given up on a good order.
    let good = json!({"event": "OrderCreated", "order_id": "ORD-1", "items": [{"product_id": product, "quantity": 3}]});
    publish(&shop, queues::DEAD_LETTERS, queues::ORDER_CREATED, &good.to_string()).await;
    letters.become_so_many(3).await;
    let list = letters.once_done(&["list"]).await;
    let id = |part: &str| {
        let line = list.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {list}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    let (garbage, incomplete, given_up) = (id("expected ident"), id("missing field `order_id`"), id("unknown"));
    let shown = letters.once_done(&["show", &given_up]).await;
    assert!(shown.contains(&good.to_string()), "{shown}");

    assert_eq!(letters.once_done(&["replay", &given_up]).await, "1 replayed\n");
    becomes(json!("HELD"), async || shop.hold("ORD-1").await["status"].clone()).await;
    assert_eq!(shop.levels(&product.to_string()).await["reserved"], 3);
    letters.become_so_many(2).await;
    // What is still wrong comes back.
    assert_eq!(letters.once_done(&["replay", &garbage]).await, "1 replayed\n");
    letters.become_so_many(2).await;

    assert_eq!(letters.once_done(&["purge", &garbage]).await, "1 purged\n");
    letters.become_so_many(1).await;
    let of_one_queue = ["list", "--queue", queues::ORDER_SETTLED];
    assert!(letters.once_done(&of_one_queue).await.starts_with(&incomplete));
    assert_eq!(letters.once_done(&["purge", "--all"]).await, "1 purged\n");
    letters.become_so_many(0).await;
    for arguments in [["show", garbage.as_str()], ["purge", garbage.as_str()], ["list", "--queue=nonsense"]] {
        let refused = letters.command(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(printed(&refused).contains("no such"), "{}", printed(&refused));
    }
    assert_eq!(printed(&shop.run("ms-orders", &["dead-letters", "list"])), "0 dead letters\n");
}

/// `ms-inventory dead-letters`. Each command takes the letters off their queues while it looks at them, and the broker
/// puts them back a moment after it has ended.
struct DeadLetters<'s>(&'s Shop);

impl DeadLetters<'_> {
    fn command(&self, arguments: &[&str]) -> Output {
        self.0.run("ms-inventory", &[&["dead-letters"], arguments].concat())
    }

    /// What it prints as soon as it succeeds.
    async fn once_done(&self, arguments: &[&str]) -> String {
        let done = Cell::new(None);
        eventually(&format!("{arguments:?} succeeds"), async || {
            let output = self.command(arguments);
            done.set(output.status.success().then(|| printed(&output)));
            output.status.success()
        })
        .await;
        done.take().unwrap()
    }

    async fn become_so_many(&self, count: usize) {
        let last_line = async || printed(&self.command(&["list"])).lines().last().unwrap_or_default().to_owned();
        becomes(format!("{count} dead letters"), last_line).await;
    }
}

/// Publishes a message somebody listens to.
pub(crate) async fn publish(shop: &Shop, exchange: &str, routing_key: &str, body: &str) {
    let connection = Connection::connect(shop.vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default();
    let sent = channel.basic_publish(exchange.into(), routing_key.into(), options, body.as_bytes(), properties).await;
    let confirmed = sent.unwrap().await.unwrap();
    assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "nobody listens to {routing_key}");
    connection.close(200, "bye".into()).await.unwrap();
}
