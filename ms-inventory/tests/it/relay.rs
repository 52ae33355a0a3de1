//! The outbox and its relay, on this service's own table.

use std::collections::BTreeSet;
use std::time::Duration;

use database::{Bounds, Database};
use dev::proxy::{Direction, Proxy};
use dev::testing::Vhost;
use events::Item;
use events::inventory::{ProductChanged, ReleaseCause, StockReleased};
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ConnectionProperties, Consumer};
use messaging::outbox::{Relay, StepError, enqueue};
use messaging::{Outgoing, Progress, Publisher, Trace, topology};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::alarms::Broker;
use crate::world::{DEADLINE, World, eventually, order_id};

fn released(order: &str, quantity: i64) -> Outgoing {
    let items = vec![Item { product_id: 1, quantity }];
    let event =
        StockReleased { order_id: order_id(order), items, cause: ReleaseCause::Expired, written_off: Vec::new() };
    Outgoing::of(&event, Trace::start()).unwrap()
}

fn changed(product_id: i64) -> Outgoing {
    let (sku, name, price) = ("SKU".to_owned(), "Thing".to_owned(), "1.00".parse().unwrap());
    Outgoing::of(&ProductChanged { product_id, sku, name, price, version: 1 }, Trace::start()).unwrap()
}

async fn store(world: &World, messages: &[Outgoing]) {
    let mut tx = world.pool.begin().await.unwrap();
    enqueue(&mut tx, messages).await.unwrap();
    tx.commit().await.unwrap();
}

async fn left(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from outbox").fetch_one(&world.pool).await.unwrap()
}

async fn connect(vhost: &Vhost) -> Connection {
    let connection = Connection::connect(vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
    topology::declare(&connection, &["inventory"], &[]).await.unwrap();
    connection
}

async fn listen(connection: &Connection, routing_key: &str) -> Consumer {
    let channel = connection.create_channel().await.unwrap();
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await.unwrap();
    let (name, key, bind) = (queue.name().clone(), routing_key.into(), QueueBindOptions::default());
    channel.queue_bind(name.clone(), "inventory".into(), key, bind, FieldTable::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    channel.basic_consume(name, ShortString::default(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Value {
    let delivery = tokio::time::timeout(DEADLINE, consumer.next()).await.expect("an event").unwrap().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    serde_json::from_slice(&delivery.data).unwrap()
}

fn relay(world: &World) -> Relay {
    Relay::new(world.connections.clone(), Duration::from_millis(20))
}

async fn step(relay: &Relay, publisher: &Publisher<'_>) -> usize {
    relay.step(publisher, &Progress::default()).await.unwrap().taken
}

/// What cannot be deleted afterwards would be published again in each step.
#[tokio::test]
async fn nothing_is_published_while_the_database_is_read_only() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    let mut consumer = listen(&connection, "stock.#").await;
    store(&world, &[released("A", 1), released("B", 1)]).await;
    let turn = |read_only| {
        world.database.set_read_only(read_only).unwrap();
        world.database.close_connections().unwrap();
    };
    turn(true);
    for _ in 0..3 {
        let step = relay.step(&publisher, &Progress::default()).await;
        assert!(matches!(step, Err(StepError::Database(_))), "{step:?}");
    }
    turn(false);
    eventually("it is writable again", async || {
        relay.step(&publisher, &Progress::default()).await.is_ok_and(|step| step.taken == 2)
    })
    .await;
    store(&world, &[released("MARKER", 1)]).await;
    assert_eq!(step(&relay, &publisher).await, 1);
    for expected in ["A", "B", "MARKER"] {
        assert_eq!(next(&mut consumer).await["order_id"], expected);
    }
}

/// More than one step's worth, by two relays that begin at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_events_of_one_order_leave_in_the_order_they_were_written() {
    const EVENTS: i64 = 1_200;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let mut consumer = listen(&connection, "stock.#").await;
    let messages: Vec<Outgoing> = (1..=EVENTS).map(|n| released(&format!("ORD-{}", n % 7), n)).collect();
    store(&world, &messages).await;

    let publishers =
        [Publisher::open(&connection, "a").await.unwrap(), Publisher::open(&connection, "b").await.unwrap()];
    let (one, other) = (relay(&world), relay(&world));
    let drain = async |relay: &Relay, publisher: &Publisher<'_>| {
        while relay.step(publisher, &Progress::default()).await.unwrap().taken > 0 {}
    };
    tokio::join!(drain(&one, &publishers[0]), drain(&other, &publishers[1]));
    assert_eq!(left(&world).await, 0);

    let mut last = [0; 7];
    for _ in 0..EVENTS {
        let event = next(&mut consumer).await;
        let quantity = event["items"][0]["quantity"].as_i64().unwrap();
        let order = usize::try_from(quantity % 7).unwrap();
        assert!(last[order] < quantity, "{quantity} after {}", last[order]);
        last[order] = quantity;
    }
}

#[tokio::test]
async fn an_event_nobody_listens_to_is_kept_until_somebody_does_and_holds_up_nobody_else() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    // Product 7 is no order of that number.
    store(&world, &[released("7", 1), changed(7)]).await;
    assert_eq!(step(&relay, &publisher).await, 2);
    assert_eq!(
        left(&world).await,
        1,
        "a product's change is for those who listen; an order's release is for its order"
    );
    assert_eq!(step(&relay, &publisher).await, 0, "it is not due yet");

    let mut consumer = listen(&connection, "stock.#").await;
    store(&world, &[released("7", 2), released("OTHER", 3)]).await;
    assert_eq!(step(&relay, &publisher).await, 1, "the later event of the same order waits with it");
    assert_eq!(next(&mut consumer).await["order_id"], "OTHER");
    eventually("it is due again", async || {
        relay.step(&publisher, &Progress::default()).await.unwrap();
        left(&world).await == 0
    })
    .await;
    for quantity in [1, 2] {
        assert_eq!(next(&mut consumer).await["items"][0]["quantity"], quantity);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_confirms_nothing_holds_up_no_other_and_ends_no_session() {
    let (world, broker) = (World::new().await, Broker::start());
    let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    topology::declare(&connection, &["inventory"], &[]).await.unwrap();
    let mut products = listen(&connection, "product.changed").await;
    let channel = connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("mute".into(), durable, FieldTable::default()).await.unwrap();
    let (exchange, key, bind) = ("inventory".into(), "stock.released".into(), QueueBindOptions::default());
    channel.queue_bind("mute".into(), exchange, key, bind, FieldTable::default()).await.unwrap();
    broker.suspend_queue("mute", true);

    store(&world, &[released("A", 1), changed(7), released("A", 2)]).await;
    let (relay, progress, stop) = (relay(&world), Progress::default(), CancellationToken::new());
    let relaying = relay.run(&connection, "test", &progress, &stop);
    let watching = async {
        assert_eq!(next(&mut products).await["product_id"], 7);
        eventually("what was placed is gone", async || left(&world).await == 2).await;
        eventually("health tells that nothing is confirmed", async || progress.check().is_err()).await;
        store(&world, &[changed(8)]).await;
        assert_eq!(next(&mut products).await["product_id"], 8);
        broker.suspend_queue("mute", false);
        eventually("all are placed", async || left(&world).await == 0).await;
        eventually("health is well", async || progress.check().is_ok()).await;

        broker.suspend_queue("mute", true);
        store(&world, &[released("B", 3)]).await;
        eventually("health tells that nothing is confirmed", async || progress.check().is_err()).await;
        // As another instance does that has placed it.
        sqlx::query("delete from outbox").execute(&world.pool).await.unwrap();
        eventually("health is well, though nothing was placed here", async || progress.check().is_ok()).await;
        broker.suspend_queue("mute", false);
        stop.cancel();
    };
    let (relayed, ()) = tokio::join!(relaying, watching);
    relayed.unwrap();
    let mut quantities = Vec::new();
    while let Some(message) = channel.basic_get("mute".into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        let event: Value = serde_json::from_slice(&message.data).unwrap();
        quantities.push(event["items"][0]["quantity"].as_i64().unwrap());
    }
    assert!(quantities.is_sorted() && quantities.contains(&2), "{quantities:?}");
}

/// It takes longer than a step may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_get_through_a_slow_link_and_no_session_ends() {
    const EVENTS: i64 = 500;
    const BYTES_PER_SECOND: u64 = 20_000;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let mut consumer = listen(&connect(&vhost).await, "product.changed").await;
    let proxy = Proxy::start_for(vhost.amqp_url()).unwrap();
    let url = proxy.in_front_of(vhost.amqp_url());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    store(&world, &(0..EVENTS).map(changed).collect::<Vec<_>>()).await;
    proxy.throttle(Direction::ToServer, Some(BYTES_PER_SECOND));
    let (relay, progress, stop) = (relay(&world), Progress::default(), CancellationToken::new());
    let relaying = relay.run(&connection, "test", &progress, &stop);
    let watching = async {
        eventually("all are placed", async || left(&world).await == 0).await;
        stop.cancel();
    };
    let (relayed, ()) = tokio::join!(relaying, watching);
    relayed.unwrap();
    let (mut products, mut copies) = (BTreeSet::new(), 0);
    while products.len() < usize::try_from(EVENTS).unwrap() {
        products.insert(next(&mut consumer).await["product_id"].as_i64().unwrap());
        copies += 1;
    }
    assert!(copies <= 3 * EVENTS, "{copies} copies of {EVENTS} events");
}

/// Under steady load no step finds the outbox empty.
#[tokio::test]
async fn the_relay_reads_all_of_the_outbox_only_while_an_event_is_postponed() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    store(&world, &[released("7", 1)]).await;
    assert_eq!(step(&relay, &publisher).await, 1);
    assert_eq!(left(&world).await, 1, "nobody listens");
    let _consumer = listen(&connection, "stock.#").await;
    eventually("the event is placed", async || {
        store(&world, &[changed(1)]).await;
        step(&relay, &publisher).await == 2
    })
    .await;
    // Longer than the ids that were given out meanwhile may take to be committed.
    sleep(Duration::from_secs(6)).await;
    sqlx::query(
        "insert into outbox (id, message_id, exchange, routing_key, event, key, body, mandatory, traceparent)
         overriding system value values (0, gen_random_uuid(), 'inventory', 'test', 'Test', 'before', '{}', false, '')",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    store(&world, &[changed(2)]).await;
    assert_eq!(step(&relay, &publisher).await, 1, "it reads on from where it was");
}

/// Longer than an id may take to be committed after it was given out. Meanwhile other events come and go.
async fn let_ids_pass(world: &World, relay: &Relay, publisher: &Publisher<'_>) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        store(world, &[changed(1)]).await;
        step(relay, publisher).await;
        sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn events_that_waited_behind_a_postponed_one_leave_before_newer_ones() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    store(&world, &[released("7", 1), released("7", 2), released("7", 3)]).await;
    let_ids_pass(&world, &relay, &publisher).await;
    let mut consumer = listen(&connection, "stock.#").await;
    // It takes the first one only, and the others have ids that have passed.
    eventually("the first one is due", async || step(&relay, &publisher).await == 1).await;
    store(&world, &[released("7", 4)]).await;
    for quantity in 1..=4 {
        assert_eq!(next(&mut consumer).await["items"][0]["quantity"], quantity);
        step(&relay, &publisher).await;
    }
}

/// Another relay has postponed it, and may be gone.
#[tokio::test]
async fn an_event_whose_id_has_passed_leaves_before_those_of_its_key_that_came_later() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    step(&relay, &publisher).await;
    let_ids_pass(&world, &relay, &publisher).await;
    store(&world, &[released("7", 1)]).await;
    let postpone = "update outbox set not_before = now() + interval '7 seconds'";
    sqlx::query(postpone).execute(&world.pool).await.unwrap();
    let_ids_pass(&world, &relay, &publisher).await;
    let mut consumer = listen(&connection, "stock.#").await;
    let is_due = "select count(*) = 1 from outbox where not_before <= now()";
    eventually("it is due", async || sqlx::query_scalar(is_due).fetch_one(&world.pool).await.unwrap()).await;
    store(&world, &[released("7", 2), released("MARKER", 1)]).await;
    assert_eq!(step(&relay, &publisher).await, 1, "the one of its key waits");
    eventually("both are published", async || {
        step(&relay, &publisher).await;
        left(&world).await == 0
    })
    .await;
    for expected in [("MARKER", 1), ("7", 1), ("7", 2)] {
        let event = next(&mut consumer).await;
        assert_eq!((event["order_id"].as_str().unwrap(), event["items"][0]["quantity"].as_i64().unwrap()), expected);
    }
}

/// Autovacuum often finds an outbox empty, and then thinks that reading all of it is as quick as looking an event up.
#[tokio::test]
async fn a_surge_after_the_outbox_was_found_empty_is_read_by_keys() {
    const EVENTS: i64 = 10_000;
    const BLOCKS_PER_EVENT: i64 = 50;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let work = Database::open(&world.database.url().into(), "test", &Bounds::default()).unwrap().pool;
    let relay = Relay::new(work, Duration::from_secs(60));
    let relay_all = async || while relay.step(&publisher, &Progress::default()).await.unwrap().taken > 0 {};
    let surge: Vec<Outgoing> = (1..=EVENTS).map(changed).collect();
    for tidy in ["vacuum analyze outbox", "analyze outbox"] {
        store(&world, &surge).await;
        for statement in ["delete from outbox", tidy] {
            sqlx::query(statement).execute(&world.pool).await.unwrap();
        }
    }
    store(&world, &surge[..1]).await;
    relay_all().await;
    store(&world, &surge).await;
    relay_all().await;
    let read = async || -> (i64, i64) {
        sqlx::query_as(
            "select (select n_tup_del from pg_stat_user_tables where relname = 'outbox'),
                    (select sum(idx_blks_hit + idx_blks_read)::bigint from pg_statio_user_indexes where relname = 'outbox')",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap()
    };
    eventually("the statistics tell of the surge", async || read().await.0 > 3 * EVENTS).await;
    let (_, blocks) = read().await;
    assert!(blocks <= BLOCKS_PER_EVENT * EVENTS, "{blocks} blocks of its indexes were read for {EVENTS} events");
}

#[tokio::test]
async fn a_relay_that_dies_before_it_deletes_publishes_again() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let connection = connect(&vhost).await;
    let mut consumer = listen(&connection, "stock.#").await;
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    let relay = relay(&world);
    store(&world, &[released("A", 1)]).await;
    sqlx::raw_sql(
        "create function die() returns trigger language plpgsql as $$
         begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10); return null; end $$;
         create trigger deadly before delete on outbox for each statement execute function die()",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    relay.step(&publisher, &Progress::default()).await.unwrap_err();
    sqlx::raw_sql("drop trigger deadly on outbox").execute(&world.pool).await.unwrap();
    assert_eq!(step(&relay, &publisher).await, 1);
    assert_eq!(left(&world).await, 0);
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!(first, second, "once for the death, once for the repeat");
}
