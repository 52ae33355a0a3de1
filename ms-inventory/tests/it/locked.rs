//! Orders whose stock somebody else has locked.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use dev::proxy::Proxy;
use dev::testing::Vhost;
use events::queues;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use sqlx::{Postgres, Transaction};

use crate::client::{Client, created};
use crate::messages::reason;
use crate::world::{Instance, World, eventually};

/// Locks are waited for as briefly as can be set, and so are the next tries.
const BRIEF: [&str; 4] = ["--retry-after-seconds", "1", "--database-lock-timeout-seconds", "1"];
/// What is moved to the retry queue stays there.
const NEVER_AGAIN: [&str; 4] = ["--retry-after-seconds", "3600", "--database-lock-timeout-seconds", "1"];

struct Shop {
    world: World,
    vhost: Vhost,
    client: Client,
    locked: i64,
    free: i64,
}

impl Shop {
    async fn new() -> Self {
        let (world, vhost) = (World::new().await, Vhost::create().unwrap());
        let (locked, free) = (world.product(100).await, world.product(1_000).await);
        let client = Client::connect(vhost.amqp_url()).await;
        Self { world, vhost, client, locked, free }
    }

    async fn start(&self, args: &[&str]) -> Instance {
        self.world.start(&self.vhost, args).await
    }

    async fn lock_stock(&self) -> Transaction<'_, Postgres> {
        self.lock_stock_of(self.locked).await
    }

    /// A transaction that somebody has left open in psql, and that has locked the stock of one product.
    async fn lock_stock_of(&self, product: i64) -> Transaction<'_, Postgres> {
        let mut left_open = self.world.pool.begin().await.unwrap();
        let lock = "select from stock where product_id = $1 for update";
        sqlx::query(lock).bind(product).execute(&mut *left_open).await.unwrap();
        left_open
    }

    /// An order that comes from the retry queue.
    async fn order_retried(&self, order_id: &str, product: i64, failed_tries: u32) {
        let mut headers = FieldTable::default();
        headers.insert("x-failed-tries".into(), AMQPValue::LongUInt(failed_tries));
        let properties = BasicProperties::default().with_headers(headers);
        self.client.publish_with("order.created", created(order_id, &[(product, 1)]).as_bytes(), properties).await;
    }

    async fn order_locked(&self, order_ids: &[&str]) {
        for order_id in order_ids {
            self.client.create(order_id, &[(self.locked, 1)]).await;
        }
    }

    async fn order_free(&self, order_id: &str) {
        self.client.create(order_id, &[(self.free, 1)]).await;
    }

    /// An order that can be reserved is answered now.
    async fn passes(&self, order_id: &str) {
        self.order_free(order_id).await;
        assert_eq!(self.client.answer().await["order_id"], order_id);
    }

    async fn are_answered(&self, order_ids: &[&str]) {
        let mut waiting: BTreeSet<&str> = order_ids.iter().copied().collect();
        while !waiting.is_empty() {
            let answer = self.client.answer().await;
            assert_eq!(answer["event"], "StockReserved");
            // One may be answered twice, if it was tried again while its answer was on its way.
            waiting.remove(answer["order_id"].as_str().unwrap());
        }
    }

    /// Somebody waits for a lock, in a transaction that began after this moment. Tells when it began, in seconds.
    async fn is_waited_for(&self, after: f64) -> f64 {
        let waiting = "select extract(epoch from max(xact_start))::float8 from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let began = Cell::new(None);
        eventually("somebody waits for the lock", async || {
            began.set(sqlx::query_scalar::<_, Option<f64>>(waiting).fetch_one(&self.world.pool).await.unwrap());
            began.get() > Some(after)
        })
        .await;
        began.get().unwrap()
    }
}

#[tokio::test]
async fn an_order_whose_stock_stays_locked_is_dead_lettered_and_the_others_are_answered() {
    const OTHERS: usize = 20;
    let shop = Shop::new().await;
    let instance = shop.start(&BRIEF).await;
    // The first one is taken alone.
    shop.passes("FIRST").await;
    let left_open = shop.lock_stock().await;
    shop.order_locked(&["LOCKED"]).await;
    let others: Vec<String> = (0..OTHERS).map(|n| format!("OTHER-{n}")).collect();
    for other in &others {
        shop.order_free(other).await;
    }
    shop.are_answered(&others.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut passed = 0;
    while shop.client.depth(&queues::dead(queues::ORDER_CREATED)).await == 0 {
        passed += 1;
        shop.passes(&format!("WHILE-IT-WAITS-{passed}")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let dead = shop.client.dead_letter().await;
    assert!(String::from_utf8_lossy(&dead.data).contains("LOCKED"));
    assert_eq!(reason(&dead), "a row it needs stays locked");
    drop(left_open);
    instance.stop().await;
    shop.world.assert_adds_up().await;
}

#[tokio::test]
async fn orders_whose_stock_is_locked_hold_up_no_other_and_are_answered_once_it_is_free() {
    let shop = Shop::new().await;
    shop.start(&BRIEF).await.stop().await;
    let left_open = shop.lock_stock().await;
    // The first that a session takes, which it takes alone.
    shop.order_locked(&["LOCKED-FIRST"]).await;
    let instance = shop.start(&BRIEF).await;
    shop.is_waited_for(0.0).await;
    shop.passes("OTHER").await;
    shop.order_locked(&["LOCKED"]).await;
    shop.is_waited_for(0.0).await;
    shop.passes("ANOTHER").await;
    instance.stop().await;
    drop(left_open);
    let instance = shop.start(&BRIEF).await;
    shop.are_answered(&["LOCKED", "LOCKED-FIRST"]).await;
    instance.stop().await;
    shop.world.assert_adds_up().await;
}

#[tokio::test]
async fn more_locked_orders_than_are_taken_at_once_hold_up_no_other_and_stand_still_by_themselves() {
    let shop = Shop::new().await;
    let instance = shop.start(&[&BRIEF[..], &["--prefetch-messages", "4"]].concat()).await;
    shop.passes("FIRST").await;
    let left_open = shop.lock_stock().await;
    let locked = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"];
    shop.order_locked(&locked).await;
    let stands_still = async || instance.health().await.to_string().contains("order.created.inventory stands still");
    eventually("health tells that nothing passes", stands_still).await;
    shop.passes("OTHER").await;
    eventually("one has passed", async || !stands_still().await).await;
    drop(left_open);
    shop.are_answered(&locked).await;
    shop.passes("LAST").await;
    instance.stop().await;
    shop.world.assert_adds_up().await;
}

#[tokio::test]
async fn retried_orders_come_after_the_others_of_their_batch_and_are_acknowledged_alone() {
    let shop = Shop::new().await;
    let proxy = Proxy::start_for(shop.vhost.amqp_url()).unwrap();
    let args = ["--retry-after-seconds", "1", "--database-lock-timeout-seconds", "8"];
    let amqp_url = proxy.in_front_of(shop.vhost.amqp_url());
    let instance = Instance::start(shop.world.database.url(), &amqp_url, &args).await;
    shop.passes("FIRST").await;
    let left_open = shop.lock_stock().await;
    let busy = shop.world.product(1).await;
    let lock = shop.lock_stock_of(busy).await;
    shop.client.create("BUSY", &[(busy, 1)]).await;
    shop.is_waited_for(0.0).await;
    // They are one batch, because they come in while another is in hand.
    shop.order_free("BEFORE").await;
    shop.order_retried("LOCKED", shop.locked, 3).await;
    shop.order_retried("RETRIED", shop.free, 1).await;
    shop.order_free("AFTER").await;
    eventually("they are delivered", async || shop.client.depth(queues::ORDER_CREATED).await == 0).await;
    drop(lock);
    for order_id in ["BUSY", "BEFORE", "AFTER", "RETRIED"] {
        assert_eq!(shop.client.answer().await["order_id"], order_id);
    }
    drop(left_open);
    shop.are_answered(&["LOCKED"]).await;
    // What is acknowledged twice ends the channel, and with it the session: at the latest when more batches were answered than
    // can be in flight.
    for n in 0..5 {
        shop.passes(&format!("LATER-{n}")).await;
    }
    assert_eq!(proxy.counts().accepted, 1);
    instance.stop().await;
    shop.world.assert_adds_up().await;
}

#[tokio::test]
async fn an_order_whose_stock_is_free_again_is_answered_while_others_go_on_being_locked() {
    let shop = Shop::new().await;
    let instance = shop.start(&BRIEF).await;
    shop.passes("FIRST").await;
    let _left_open = shop.lock_stock().await;
    let freed = shop.world.product(10).await;
    let lock = shop.lock_stock_of(freed).await;
    let freed_orders = ["FREED-1", "FREED-2", "FREED-3"];
    for order_id in freed_orders {
        shop.client.create(order_id, &[(freed, 1)]).await;
    }
    let inflow = async {
        for n in 0.. {
            shop.client.create(&format!("LOCKED-{n}"), &[(shop.locked, 1)]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let freeing = async {
        let retry = queues::retry(queues::ORDER_CREATED);
        eventually("many wait", async || shop.client.depth(&retry).await > 50).await;
        drop(lock);
        shop.are_answered(&freed_orders).await;
    };
    tokio::select! {
        () = inflow => (),
        () = freeing => (),
    }
    instance.stop().await;
    shop.world.assert_adds_up().await;
}

#[tokio::test]
async fn an_order_that_the_retry_queue_refuses_goes_back_to_its_queue() {
    let shop = Shop::new().await;
    let instance = shop.start(&NEVER_AGAIN).await;
    let (management, vhost) = (shop.vhost.management(), shop.vhost.name());
    let retry = queues::retry(queues::ORDER_CREATED);
    management.limit_queue(vhost, &retry, 1).unwrap();
    eventually("it is full", async || !shop.client.is_taken(queues::DEAD_LETTERS, &retry).await).await;
    let left_open = shop.lock_stock().await;
    shop.order_locked(&["LOCKED"]).await;
    let first_try = shop.is_waited_for(0.0).await;
    shop.is_waited_for(first_try).await;
    drop(left_open);
    shop.are_answered(&["LOCKED"]).await;
    instance.stop().await;
}
