//! The orders under a seed: some are published over AMQP, others placed over HTTP by clients that may hang up.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::broker::Broker;
use super::plan::{Load, Plan, Purpose, random_for};
use crate::service::Api;
use crate::shop::CREATE_ORDER;

/// How many bursts of orders are published, how large the largest is, and the longest pause after one in milliseconds.
/// Either takes some five seconds.
const STEADY: (usize, usize, u64) = (75, 8, 60);
const BURSTS: (usize, usize, u64) = (15, 50, 300);

/// Clients that place orders one after the other, and how many each of them places.
const SHOPPERS: u64 = 3;
const ORDERS_OF_A_SHOPPER: usize = 12;

/// How long a client repeats an order that is not answered.
const SHOPPER_DEADLINE: Duration = Duration::from_secs(60);

/// An order that was published over AMQP, routed and confirmed.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) id: String,
    pub(super) items: Value,
}

/// What the load has done.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) published: Vec<Published>,
    /// How many of them were published twice or more.
    pub(super) repeated: usize,
    /// The ids that createOrder returned.
    pub(super) placed: Vec<String>,
    /// How many requests the clients gave up in the middle.
    pub(super) hung_up: usize,
    /// Orders that no client got an answer to within the deadline.
    pub(super) unanswered: Vec<String>,
}

/// Orders until all are published and placed. Of the first two products there is enough.
pub(super) async fn run(plan: &Plan, products: &[i64], broker: &Broker, orders: &Api) -> Loaded {
    let seed = plan.seed;
    let products = if plan.load == Load::Steady { &products[..2] } else { products };
    let publishing = publish(random_for(seed, Purpose::Publisher), plan, products, broker);
    let shopping = (0..SHOPPERS)
        .map(|number| shop(random_for(seed, Purpose::Shopper(number)), format!("{seed}-{number}"), products, orders));
    let ((published, repeated), shoppers) = futures::join!(publishing, join_all(shopping));
    let mut loaded = Loaded { published, repeated, ..Loaded::default() };
    for shopper in shoppers {
        loaded.placed.extend(shopper.placed);
        loaded.hung_up += shopper.hung_up;
        loaded.unanswered.extend(shopper.unanswered);
    }
    loaded
}

/// Publishes one order and waits until it is routed and confirmed.
pub(super) async fn publish_one(broker: &Broker, order: &Published) {
    let body = json!({"event": "OrderCreated", "order_id": order.id, "items": order.items});
    broker.publish(&order.id, body.to_string().as_bytes()).await;
}

async fn publish(mut random: StdRng, plan: &Plan, products: &[i64], broker: &Broker) -> (Vec<Published>, usize) {
    let (mut published, mut repeated): (Vec<Published>, usize) = (Vec::new(), 0);
    let seed = plan.seed;
    let (bursts, max_burst, max_pause_ms) = match plan.load {
        Load::Steady => STEADY,
        Load::Bursts => BURSTS,
    };
    for burst in 0..bursts {
        let mut orders: Vec<Published> = (0..random.random_range(1..=max_burst))
            .map(|number| Published {
                id: format!("D-{seed}-{burst}-{number}"),
                items: items(&mut random, products, "product_id"),
            })
            .collect();
        let new = orders.len();
        if let Some(known) = published.choose(&mut random).filter(|_| random.random_bool(0.5)) {
            orders.push(known.clone());
            repeated += 1;
        }
        if random.random_bool(0.2) {
            orders.push(orders[0].clone());
            repeated += 1;
        }
        join_all(orders.iter().map(|order| publish_one(broker, order))).await;
        published.extend(orders.into_iter().take(new));
        tokio::time::sleep(Duration::from_millis(random.random_range(0..max_pause_ms))).await;
    }
    (published, repeated)
}

/// One to three of some of the products.
fn items(random: &mut StdRng, products: &[i64], id: &str) -> Value {
    let count = random.random_range(1..=products.len());
    let chosen: Vec<i64> = products.sample(random, count).copied().collect();
    chosen.into_iter().map(|product| json!({id: product, "quantity": random.random_range(1..=3)})).collect()
}

async fn shop(mut random: StdRng, key: String, products: &[i64], orders: &Api) -> Loaded {
    let mut loaded = Loaded::default();
    for number in 0..ORDERS_OF_A_SHOPPER {
        let key = format!("{key}-{number}");
        let reference = *["card", "card", "card", "decline"].choose(&mut random).unwrap();
        let items: Vec<Value> = items(&mut random, products, "productId")
            .as_array()
            .unwrap()
            .iter()
            .map(|item| json!({"productId": item["productId"].to_string(), "quantity": item["quantity"]}))
            .collect();
        let input = json!({"input": {"items": items, "paymentReference": reference, "idempotencyKey": key}});
        let patience = Duration::from_millis(random.random_range(0..30));
        let (hangs_up, comes_back) = (random.random_bool(0.3), random.random_bool(0.5));
        let pause = Duration::from_millis(random.random_range(0..500));
        if hangs_up && tokio::time::timeout(patience, orders.send(CREATE_ORDER, &input)).await.is_err() {
            loaded.hung_up += 1;
        }
        if !hangs_up || comes_back {
            match place(orders, &input).await {
                Some(id) => loaded.placed.push(id),
                None => loaded.unanswered.push(key),
            }
        }
        tokio::time::sleep(pause).await;
    }
    loaded
}

/// Places an order, again and again until it is answered with its id.
pub(super) async fn place(orders: &Api, input: &Value) -> Option<String> {
    let deadline = Instant::now() + SHOPPER_DEADLINE;
    while Instant::now() < deadline {
        // A request that hangs is given up as a person would, and repeated under its key.
        let asked = tokio::time::timeout(Duration::from_secs(10), orders.send(CREATE_ORDER, input)).await;
        let answer = asked.ok().and_then(Result::ok).unwrap_or_default();
        if let Some(id) = answer["data"]["createOrder"]["id"].as_str() {
            return Some(id.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}
