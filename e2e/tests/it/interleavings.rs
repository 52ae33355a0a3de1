//! Orders that are created, answered, paid, declined, cancelled, refunded and run out of time in any interleaving, their
//! events repeated and reordered, both services killed in between: in the end money and stock agree.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use events::queues;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::service::{Api, DEADLINE, eventually};
use crate::shop::{Shop, printed, text};

/// How many stories are told, each by its seed.
const SEEDS: u64 = 240;

/// How many of them at the same time.
const AT_ONCE: usize = 24;

/// How many stories follow, fewer at the same time, if orders did not end in all the ways: on a busy machine most holds run out
/// before they are paid for.
const MORE_SEEDS: u64 = 480;
const MORE_AT_ONCE: usize = 4;

/// How orders end.
const ENDS: [&str; 3] = ["completed", "refunded", "cancelled"];

/// Holds run out while slow and flaky payments, which take about three seconds, are on their way.
const SETTINGS: &[(&str, &str)] = &[
    ("HOLD_TTL_SECONDS", "3"),
    ("SWEEP_PERIOD_MS", "100"),
    ("PAYMENT_DELAY_SECONDS", "0"),
    ("PAYMENT_PERIOD_MS", "50"),
    ("REASK_AFTER_SECONDS", "2"),
    ("REASK_PERIOD_MS", "200"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_in_whatever_order_money_and_stock_agree_in_the_end() {
    let mut shop = Shop::open_with(SETTINGS).await;
    let tap = Tap::open(shop.vhost.amqp_url()).await;
    let (orders, inventory) = ((*shop.orders).clone(), (*shop.inventory).clone());
    let (orders_pool, inventory_pool) = (shop.orders_pool().await, shop.inventory_pool().await);
    let ended_in_all_ways = async || {
        let ends = "select count(distinct status) from orders where status::text = any($1)";
        let ends: i64 = sqlx::query_scalar(ends).bind(&ENDS[..]).fetch_one(&orders_pool).await.unwrap();
        ends == ENDS.len() as i64
    };
    let (mut begun, mut running, mut told) = (0, FuturesUnordered::new(), Vec::new());
    let finished = CancellationToken::new();
    let telling = async {
        loop {
            let (seeds, at_once) = match begun {
                ..SEEDS => (SEEDS, AT_ONCE),
                _ if ended_in_all_ways().await => (begun, 0),
                _ => (SEEDS + MORE_SEEDS, MORE_AT_ONCE),
            };
            while running.len() < at_once && begun < seeds {
                running.push(tell(begun, orders.clone(), inventory.clone(), tap.clone()));
                begun += 1;
            }
            let Some(story) = running.next().await else { break };
            told.push(story);
        }
        finished.cancel();
    };
    let killing = async {
        let mut pauses = StdRng::seed_from_u64(SEEDS);
        for kill in 0.. {
            let pause = Duration::from_millis(pauses.random_range(1_500..4_000));
            if finished.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            let service = if kill % 2 == 0 { &mut shop.orders } else { &mut shop.inventory };
            service.kill9();
            service.start().await;
        }
    };
    tokio::join!(telling, killing);

    eventually("nothing is outstanding any more", async || {
        let stuck = shop.orders.ask("{ stuckOrders(olderThanSeconds: 0) { id } }", json!({})).await;
        let left: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&orders_pool).await.unwrap();
        let unsaid: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&inventory_pool).await.unwrap();
        let held = "select count(*) from holds where status = 'held'";
        let held: i64 = sqlx::query_scalar(held).fetch_one(&inventory_pool).await.unwrap();
        stuck == json!([]) && left == 0 && unsaid == 0 && held == 0
    })
    .await;
    for queue in [queues::ORDER_CREATED, queues::ORDER_SETTLED, queues::STOCK_OUTCOMES] {
        assert_eq!(tap.depth(&queues::dead(queue)).await, 0, "dead letters of {queue}");
    }

    let order_rows: Vec<(String, String, String)> =
        sqlx::query_as("select id, status::text, total::text from orders").fetch_all(&orders_pool).await.unwrap();
    let charged: HashMap<String, String> =
        sqlx::query_as("select key, amount::text from provider_charges where state = 'charged'")
            .fetch_all(&orders_pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
    let holds: HashMap<String, String> = sqlx::query_as("select order_id, status::text from holds")
        .fetch_all(&inventory_pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let orders: HashMap<&str, (&str, &str)> =
        order_rows.iter().map(|(id, status, total)| (id.as_str(), (status.as_str(), total.as_str()))).collect();
    let mut ends = BTreeMap::<&str, usize>::new();
    for Story { seed, products, placed } in &told {
        let mut sold = BTreeMap::<&str, i64>::new();
        for (id, order) in placed {
            let (status, total) = orders[id.as_str()];
            let hold = holds.get(id).map(String::as_str);
            let told = format!("seed {seed}: order {id} is {status}, its hold {hold:?}");
            let may_be: &[Option<&str>] = match status {
                "completed" => &[Some("committed")],
                "refunded" if order.restock => &[Some("returned"), Some("rejected")],
                "refunded" => &[Some("committed"), Some("rejected")],
                "cancelled" => &[Some("released"), Some("expired"), Some("rejected"), None],
                _ => &[],
            };
            assert!(may_be.contains(&hold), "{told}");
            let paid = (status == "completed").then_some(total);
            assert_eq!(charged.get(id).map(String::as_str), paid, "{told}");
            if hold == Some("committed") {
                for (product, quantity) in &order.items {
                    *sold.entry(product).or_default() += quantity;
                }
            }
            *ends.entry(status).or_default() += 1;
        }
        for (product, on_hand) in products {
            let left = on_hand - sold.get(product.as_str()).copied().unwrap_or_default();
            let levels = json!({"onHand": left, "reserved": 0, "available": left});
            assert_eq!(shop.levels(product).await, levels, "seed {seed}: product {product}");
        }
    }
    assert_eq!(told.iter().map(|story| story.placed.len()).sum::<usize>(), orders.len());
    for status in ENDS {
        assert!(ends.contains_key(status), "no order ended {status}: {ends:?}");
    }
    let doctor = shop.run("ms-inventory", &["doctor"]);
    assert!(doctor.status.success(), "{}", printed(&doctor));
}

/// What happened under one seed.
struct Story {
    seed: u64,
    /// Each product with what there was of it.
    products: Vec<(String, i64)>,
    placed: Vec<(String, Placed)>,
}

struct Placed {
    items: Vec<(String, i64)>,
    /// Whether its refunds bring the goods back.
    restock: bool,
}

/// Lives through one story: some orders for two products, of which there is not enough for all.
async fn tell(seed: u64, orders: Api, inventory: Api, tap: Tap) -> Story {
    let mut random = StdRng::seed_from_u64(seed);
    let mut products = Vec::new();
    for n in 0..2 {
        let on_hand = random.random_range(2..8);
        products.push((product(&inventory, &orders, seed, n, on_hand).await, on_hand));
    }
    let count = random.random_range(2..6);
    let mut lives = Vec::new();
    for n in 0..count {
        let mut items: Vec<(String, i64)> = products
            .iter()
            .map(|(id, _)| (id.clone(), random.random_range(0..4)))
            .filter(|(_, quantity)| *quantity > 0)
            .collect();
        if items.is_empty() {
            items.push((products[0].0.clone(), 1));
        }
        lives.push(live(StdRng::seed_from_u64(random.random()), format!("{seed}-{n}"), items, &orders, &tap));
    }
    let placed = futures::future::join_all(lives).await;
    Story { seed, products, placed }
}

/// Places an order, then does to it whatever comes to mind.
async fn live(mut random: StdRng, key: String, items: Vec<(String, i64)>, orders: &Api, tap: &Tap) -> (String, Placed) {
    pause(&mut random, 500).await;
    let reference = *["card", "card", "card", "decline", "slow", "flaky"].choose(&mut random).unwrap();
    let lines: Vec<Value> = items.iter().map(|(id, quantity)| json!({"productId": id, "quantity": quantity})).collect();
    let input = json!({"items": lines, "paymentReference": reference, "idempotencyKey": key});
    let create = "mutation($input: CreateOrderInput!) { createOrder(input: $input) { id } }";
    let created = insist(orders, create, &json!({"input": input})).await;
    let id = text(&created["data"]["createOrder"]["id"]);
    let restock = random.random();
    for _ in 0..random.random_range(0..8) {
        pause(&mut random, 900).await;
        match random.random_range(0..6) {
            0 => {
                let cancel = "mutation($id: ID!, $key: String) {
                    cancelOrder(id: $id, reason: \"cancelled\", idempotencyKey: $key) { id }
                }";
                insist(orders, cancel, &json!({"id": id, "key": key})).await;
            }
            1 => {
                let refund = "mutation($id: ID!, $restock: Boolean!, $key: String) {
                    refundOrder(id: $id, reason: \"refunded\", restock: $restock, idempotencyKey: $key) { id }
                }";
                insist(orders, refund, &json!({"id": id, "restock": restock, "key": key})).await;
            }
            _ => tap.repeat(&id, &mut random).await,
        }
    }
    (id, Placed { items, restock })
}

async fn pause(random: &mut StdRng, most: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..most))).await;
}

async fn product(inventory: &Api, orders: &Api, seed: u64, n: usize, on_hand: i64) -> String {
    let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let input = json!({"sku": format!("S-{seed}-{n}"), "name": "Thing", "price": "1.25", "onHand": on_hand});
    let created = insist(inventory, create, &json!({"input": input})).await;
    let id = match created["data"]["createProduct"]["id"].as_str() {
        Some(id) => id.to_owned(),
        // It was created, and the answer lost.
        None => {
            let find = "query($sku: String!) { products(first: 1, filter: {search: $sku}) { nodes { id } } }";
            let found = insist(inventory, find, &json!({"sku": format!("S-{seed}-{n}")})).await;
            text(&found["data"]["products"]["nodes"][0]["id"])
        }
    };
    let quote = "query($items: [ItemInput!]!) { quote(items: $items) { total } }";
    let items = json!({"items": [{"productId": id, "quantity": 1}]});
    eventually("orders knows the product", async || !insist(orders, quote, &items).await["data"].is_null()).await;
    id
}

/// Asks until there is an answer or a refusal, whatever happens to the service.
async fn insist(api: &Api, query: &str, variables: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let response = api.send(query, variables).await.unwrap_or_default();
        let code = &response["errors"][0]["extensions"]["code"];
        if !response.is_null() && *code != "INTERNAL" {
            return response;
        }
        assert!(begun.elapsed() < DEADLINE, "no answer: {response}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Hears all events, and can say them again.
#[derive(Clone)]
struct Tap {
    channel: Channel,
    heard: Arc<Mutex<HashMap<String, Vec<Heard>>>>,
}

#[derive(Clone)]
struct Heard {
    exchange: ShortString,
    routing_key: ShortString,
    body: Vec<u8>,
}

impl Tap {
    async fn open(amqp_url: &str) -> Self {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await.unwrap();
        for exchange in ["orders", "inventory"] {
            let (name, options) = (queue.name().clone(), QueueBindOptions::default());
            channel.queue_bind(name, exchange.into(), "#".into(), options, FieldTable::default()).await.unwrap();
        }
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consuming =
            channel.basic_consume(queue.name().clone(), ShortString::default(), options, FieldTable::default());
        let mut events = consuming.await.unwrap();
        let tap = Self { channel, heard: Arc::default() };
        let heard = tap.heard.clone();
        tokio::spawn(async move {
            // The connection lives as long as somebody listens.
            let _connection = connection;
            while let Some(Ok(event)) = events.next().await {
                let body: Value = serde_json::from_slice(&event.data).unwrap();
                let Some(order) = body["order_id"].as_str() else { continue };
                let (exchange, routing_key) = (event.exchange.clone(), event.routing_key.clone());
                let mut heard = heard.lock().unwrap();
                heard.entry(order.to_owned()).or_default().push(Heard { exchange, routing_key, body: event.data });
            }
        });
        tap
    }

    /// How many messages wait in a queue.
    async fn depth(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        queue.message_count()
    }

    /// Says some event of an order again.
    async fn repeat(&self, order: &str, random: &mut StdRng) {
        let heard = self.heard.lock().unwrap().get(order).cloned().unwrap_or_default();
        let Some(Heard { exchange, routing_key, body }) = heard.choose(random) else { return };
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        self.channel.basic_publish(exchange.clone(), routing_key.clone(), options, body, properties).await.unwrap();
    }
}
