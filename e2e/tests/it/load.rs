use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::service::{Api, DEADLINE, becomes, eventually};
use crate::shop::{CREATE_ORDER, Shop, text};

/// Customers who order one after the other, all at the same time, and repeat what was not answered.
pub(crate) struct Load {
    answered: Arc<AtomicUsize>,
    done: CancellationToken,
    customers: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    const CUSTOMERS: usize = 6;

    /// Has half of them order 1 or 2 of each product, and the other half of the first product only.
    pub(crate) fn begin(orders: &Api, products: &[&str]) -> Self {
        let (answered, done) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let customers = (0..Self::CUSTOMERS).map(|customer| {
            let (orders, answered, done) = (orders.clone(), Arc::clone(&answered), done.clone());
            let wanted = if customer % 2 == 0 { products } else { &products[..1] };
            let wanted: Vec<String> = wanted.iter().map(|&id| id.to_owned()).collect();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while !done.is_cancelled() {
                    let n = ids.len();
                    let item = |id: &String| json!({"productId": id, "quantity": 1 + n % 2});
                    let items: Vec<Value> = wanted.iter().map(item).collect();
                    let input = json!({"items": items, "idempotencyKey": format!("{customer}-{n}")});
                    ids.push(place(&orders, &json!({"input": input})).await);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                ids
            })
        });
        let customers = customers.collect();
        Self { answered, done, customers }
    }

    /// Waits until so many more orders were answered.
    pub(crate) async fn goes_on(&self, orders: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + orders;
        eventually("more orders are answered", async || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    /// Lets the customers finish; the ids they were told, one for each order.
    pub(crate) async fn end(self) -> Vec<String> {
        self.done.cancel();
        join_all(self.customers).await.into_iter().flat_map(Result::unwrap).collect()
    }
}

/// Asks until it is answered, and returns the order's id.
async fn place(orders: &Api, variables: &Value) -> String {
    let begun = Instant::now();
    loop {
        let response = orders.send(CREATE_ORDER, variables).await.unwrap_or_default();
        if let Some(id) = response["data"]["createOrder"]["id"].as_str() {
            return id.to_owned();
        }
        let errors = response["errors"].as_array().into_iter().flatten();
        for error in errors {
            assert_eq!(error["extensions"]["code"], "INTERNAL", "a failure at most: {error}");
        }
        assert!(begun.elapsed() < DEADLINE, "no answer: {response}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Shop {
    /// Checks that each of these orders exists once and is settled, that what is confirmed is what is reserved of each
    /// product, and that the stock adds up. Returns how many are confirmed.
    pub(crate) async fn assert_nothing_lost(&self, ids: &[String], products: &[&str]) -> usize {
        let distinct: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(distinct.len(), ids.len(), "two orders got one id");
        let pending = async || self.orders.ask("{ orders(status: PENDING) { totalCount } }", json!({})).await;
        becomes(json!({"totalCount": 0}), pending).await;
        let all = self.all_orders().await;
        let placed: BTreeSet<String> = all.iter().map(|order| text(&order["id"])).collect();
        let unmatched: Vec<&String> = placed.symmetric_difference(&distinct).collect();
        assert!(unmatched.is_empty(), "lost, or placed twice: {unmatched:?}");

        let confirmed: Vec<&Value> = all.iter().filter(|order| order["status"] == "CONFIRMED").collect();
        for product in products {
            let items = confirmed.iter().flat_map(|order| order["items"].as_array().unwrap());
            let ordered = items.filter(|item| item["productId"] == *product);
            let quantity: i64 = ordered.map(|item| item["quantity"].as_i64().unwrap()).sum();
            assert_eq!(self.levels(product).await["reserved"], quantity, "product {product}");
        }
        let doctor = self.run("ms-inventory", &["doctor"]);
        assert!(doctor.status.success(), "{}", crate::shop::printed(&doctor));
        confirmed.len()
    }

    async fn all_orders(&self) -> Vec<Value> {
        let query = "query($after: String) {
          orders(first: 100, after: $after) {
            nodes { id status items { productId quantity } }
            pageInfo { hasNextPage endCursor }
          }
        }";
        let (mut all, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut page = self.orders.ask(query, json!({"after": after})).await;
            all.append(page["nodes"].as_array_mut().unwrap());
            if page["pageInfo"]["hasNextPage"] == false {
                return all;
            }
            after = page["pageInfo"]["endCursor"].take();
        }
    }
}
