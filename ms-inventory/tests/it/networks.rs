//! What an order is told has happened, and orders go on by themselves, whatever networks and servers do.

use std::collections::HashMap;
use std::time::Duration;

use dev::proxy::{Direction, Proxy};
use dev::testing::Vhost;
use events::queues;
use futures::future::join_all;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ExchangeKind};
use messaging::session::{Broker, Work};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::world::{DEADLINE, Instance, World, eventually};

/// The time-outs of an instance that is to notice soon.
const SHORT: &[&str] = &["--batch-timeout-seconds", "3", "--batch-give-back-seconds", "4"];

/// An instance behind proxies, and what it works on.
struct Network {
    world: World,
    vhost: Vhost,
    database: Proxy,
    broker: Proxy,
    client: Client,
}

impl Network {
    async fn new() -> Self {
        let (world, vhost) = (World::new().await, Vhost::create().unwrap());
        let database = Proxy::start_for(world.database.url()).unwrap();
        let broker = Proxy::start_for(vhost.amqp_url()).unwrap();
        let client = Client::connect(vhost.amqp_url()).await;
        Self { world, vhost, database, broker, client }
    }

    async fn start(&self, args: &[&str]) -> Instance {
        let database_url = self.database.in_front_of(self.world.database.url());
        Instance::start(&database_url, &self.broker.in_front_of(self.vhost.amqp_url()), args).await
    }

    /// The answers to these orders, each once: a repetition must be the same.
    async fn answers(&self, ids: &[String]) -> HashMap<String, Value> {
        let mut answers = HashMap::new();
        while !ids.iter().all(|id| answers.contains_key(id)) {
            let answer = self.client.answer().await;
            let id = answer["order_id"].as_str().unwrap().to_owned();
            if let Some(first) = answers.insert(id, answer.clone()) {
                assert_eq!(first, answer, "one answer");
            }
        }
        answers
    }

    async fn answered_within(&self, order_id: &str, limit: Duration) {
        let answering = async { while self.client.answer().await["order_id"] != order_id {} };
        timeout(limit, answering).await.unwrap_or_else(|_| panic!("{order_id} is not answered within {limit:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_order_is_answered_without_its_hold_while_connections_are_reset() {
    const ORDERS: usize = 3_000;
    let network = Network::new().await;
    let products = [network.world.product(1_000_000).await, network.world.product(1_000_000).await];
    for direction in [Direction::ToServer, Direction::ToClient] {
        network.database.delay(direction, Duration::from_millis(1));
    }
    // A relay that begins a transaction again and again, so that resets find it in the middle of one.
    let instance = network.start(&["--outbox-period-ms", "5"]).await;
    let ids: Vec<String> = (0..ORDERS).map(|n| format!("ORD-{n}")).collect();
    let sending = async {
        for (n, id) in ids.iter().enumerate() {
            network.client.create(id, &[(products[n % 2], 1)]).await;
            // And the other consumer as well.
            network.client.cancel(&format!("NEVER-{n}")).await;
        }
    };
    let breaking = async {
        for n in 1.. {
            sleep(Duration::from_millis(37 * (n % 9))).await;
            network.broker.reset_all();
            // A session that has begun anew by then answers; what it has not committed is lost.
            sleep(Duration::from_millis(700)).await;
            network.database.reset_all();
        }
    };
    tokio::select! {
        () = sending => (),
        () = breaking => (),
    }
    network.broker.work();
    let answers = network.answers(&ids).await;
    assert!(network.broker.resets() > 5, "{} resets", network.broker.resets());
    let held: Vec<String> = sqlx::query_scalar("select order_id from holds where status = 'held'")
        .fetch_all(&network.world.pool)
        .await
        .unwrap();
    let unheld = ids.iter().filter(|id| answers[*id]["event"] == "StockReserved" && !held.contains(id)).count();
    assert_eq!(unheld, 0, "of {ORDERS} orders that were told StockReserved so many have no hold");
    assert_eq!(held.len(), ORDERS);
    network.world.assert_adds_up().await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    eventually("no transaction is open", async || {
        sqlx::query_scalar::<_, i64>(open).fetch_one(&network.world.pool).await.unwrap() == 0
    })
    .await;
    instance.stop().await;
}

#[tokio::test]
async fn orders_go_on_when_connections_to_the_database_have_gone_silent() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(SHORT).await;
    network.client.create("BEFORE", &[(product, 1)]).await;
    network.answered_within("BEFORE", Duration::from_secs(30)).await;
    // One direction after the other: the server has done it and is not heard, or has never heard of it.
    for (direction, id) in [(Direction::ToClient, "UNHEARD"), (Direction::ToServer, "UNSAID")] {
        network.database.silence_established_in(direction);
        network.client.create(id, &[(product, 1)]).await;
        network.answered_within(id, Duration::from_secs(30)).await;
        eventually("it is ready", async || instance.is_ready().await).await;
    }
    assert_eq!(network.world.level(product).await.reserved, 3);
    network.world.assert_adds_up().await;
    instance.stop().await;
}

/// The servers are there, but the connections to them have gone silent: whatever is in hand then must not be waited for.
#[tokio::test]
async fn an_instance_drains_when_its_connections_have_gone_silent() {
    // Made before and dropped after all rounds, because both block.
    let networks = [Network::new().await, Network::new().await, Network::new().await];
    join_all((0..).zip(&networks).map(|(round, network)| drains_when_silent(round, network))).await;
}

async fn drains_when_silent(round: u64, network: &Network) {
    let product = network.world.product(100).await;
    let instance = network.start(&["--outbox-period-ms", "5", "--sweep-period-ms", "5"]).await;
    for n in 0..50 {
        network.client.create(&format!("ORD-{n}"), &[(product, 1)]).await;
    }
    network.database.silence_established();
    if round > 0 {
        network.broker.silence_established();
    }
    network.client.create("LAST", &[(product, 1)]).await;
    // Whether a batch, a step of the relay or a sweep is in hand is chance.
    sleep(Duration::from_millis(200 * round)).await;
    instance.stop().await;
}

/// As a reset in the middle of the handshake may leave it: the connection is open, and nothing comes any more.
#[tokio::test]
async fn orders_go_on_when_an_attempt_to_connect_to_the_broker_is_never_answered() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    network.broker.silence_all();
    let (database_url, broker_url) =
        (network.world.database.url(), network.broker.in_front_of(network.vhost.amqp_url()));
    let instance = Instance::start_unready(database_url, &broker_url, &[]).await;
    eventually("it tries to connect", async || network.broker.counts().accepted > 0).await;
    // New attempts are answered. The one there is stays silent.
    network.broker.work();
    eventually("it is ready", async || instance.is_ready().await).await;
    network.client.create("AFTER", &[(product, 1)]).await;
    network.answered_within("AFTER", Duration::from_secs(30)).await;
    instance.stop().await;
}

/// Two heartbeats later a silent connection is given up, by us and by the broker, which offers one of 60 s.
#[tokio::test]
async fn a_heartbeat_of_10_s_is_agreed_on_unless_the_url_has_another() {
    let vhost = Vhost::create().unwrap();
    for (query, seconds) in [("", 10), ("?heartbeat=2", 2)] {
        let broker = Broker::new(&format!("{}{query}", vhost.amqp_url()), "test").unwrap();
        let connection = broker.connect().await.unwrap();
        assert_eq!(connection.configuration().heartbeat(), seconds);
    }
}

/// Its session may go on for a while, with what it has in hand.
#[tokio::test]
async fn a_lost_connection_to_the_broker_is_told_before_its_session_ends() {
    let vhost = Vhost::create().unwrap();
    let proxy = Proxy::start_for(vhost.amqp_url()).unwrap();
    let broker = Broker::new(&proxy.in_front_of(vhost.amqp_url()), "test").unwrap();
    let connection = broker.connect().await.unwrap();
    broker.ready(&connection);
    assert_eq!(broker.check(), Ok(()));
    proxy.reset_all();
    let lost = Err("the connection is lost".to_owned());
    eventually("it is told", async || broker.check() == lost).await;
}

/// Work that waits for ever, whatever it is told.
struct Endless(Notify);

impl Work for Endless {
    async fn session(&self, _: &Connection) -> anyhow::Result<()> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_session_that_does_not_end_after_a_stop_is_ended() {
    let vhost = Vhost::create().unwrap();
    let broker = Broker::new(vhost.amqp_url(), "test").unwrap();
    let (work, stop) = (Endless(Notify::new()), CancellationToken::new());
    let stopping = async {
        work.0.notified().await;
        stop.cancel();
    };
    let ended = timeout(DEADLINE, async { futures::join!(broker.run(&stop, &work), stopping) }).await;
    ended.expect("the session is not waited for");
    assert_eq!(broker.check(), Err("shut down".to_owned()));
}

#[tokio::test]
async fn orders_go_on_when_the_connection_to_the_broker_has_gone_silent() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(&[]).await;
    network.client.create("BEFORE", &[(product, 1)]).await;
    network.answered_within("BEFORE", Duration::from_secs(30)).await;
    // Nothing is sent on it, so only heartbeats can tell.
    network.broker.silence_established();
    network.client.create("UNSAID", &[(product, 1)]).await;
    network.answered_within("UNSAID", Duration::from_secs(60)).await;
    instance.stop().await;
}

#[tokio::test]
async fn an_instance_that_lost_its_database_is_not_ready_and_another_takes_its_orders() {
    let network = Network::new().await;
    let product = network.world.product(1_000).await;
    let lost = network.start(SHORT).await;
    // All of them: it has the prefetch in hand.
    network.database.silence_all();
    let ids: Vec<String> = (0..20).map(|n| format!("ORD-{n}")).collect();
    for id in &ids {
        network.client.create(id, &[(product, 1)]).await;
    }
    eventually("it is not ready", async || !lost.is_ready().await).await;
    let other = network.world.start(&network.vhost, &[]).await;
    let begun = Instant::now();
    network.answers(&ids).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "another instance waited {:?}", begun.elapsed());
    network.database.work();
    eventually("it is ready again", async || lost.is_ready().await).await;
    lost.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn orders_go_on_when_a_database_that_turned_read_only_is_writable_again() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(SHORT).await;
    let name = network.world.database.name();
    let turn = async |read_only: &str| {
        let statement = format!("alter database {name} set default_transaction_read_only = {read_only}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("begin read write; {statement}; commit")))
            .execute(&network.world.pool)
            .await
            .unwrap();
    };
    turn("on").await;
    network.world.database.close_connections().unwrap();
    eventually("it is not ready", async || !instance.is_ready().await).await;
    network.client.create("MEANWHILE", &[(product, 1)]).await;
    let late = Instance::start_unready(
        &network.database.in_front_of(network.world.database.url()),
        network.vhost.amqp_url(),
        SHORT,
    )
    .await;
    // The connections there are stay as they are.
    turn("off").await;
    network.answered_within("MEANWHILE", Duration::from_secs(15)).await;
    for instance in [instance, late] {
        eventually("it is ready", async || instance.is_ready().await).await;
        instance.stop().await;
    }
}

#[tokio::test]
async fn an_exchange_that_is_deleted_or_a_binding_that_is_removed_is_there_again() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(&[]).await;
    let channel = network.client.connection.create_channel().await.unwrap();
    let bound = async |marker: &str| {
        let mut n = 0;
        let begun = Instant::now();
        loop {
            n += 1;
            let id = format!("{marker}-{n}");
            if network.client.try_create(&id, &[(product, 1)]).await {
                network.answered_within(&id, Duration::from_secs(30)).await;
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{marker}: nothing is bound");
            sleep(Duration::from_millis(200)).await;
        }
    };
    bound("BEFORE").await;
    let (queue, exchange, key) = (queues::ORDER_CREATED, "orders", "order.created");
    channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await.unwrap();
    assert!(!network.client.try_create("UNROUTABLE", &[(product, 1)]).await);
    bound("UNBOUND").await;
    channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    // Another service declares it again, and does not know of our binding.
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    bound("DELETED").await;
    instance.stop().await;
}

#[tokio::test]
async fn health_tells_of_answers_that_nobody_gets() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(&[]).await;
    let up = instance.health().await["dependencies"]["delivery"]["status"].clone();
    assert_eq!(up, "up");
    network.client.stop_listening().await;
    network.client.create("UNHEARD", &[(product, 1)]).await;
    eventually("it tells", async || {
        let reason = instance.health().await["dependencies"]["delivery"]["reason"].clone();
        reason == "no queue of the exchange inventory is bound for stock.reserved"
    })
    .await;
    assert!(instance.is_ready().await, "it can work");
    instance.stop().await;
}

#[tokio::test]
async fn health_tells_of_holds_that_cannot_expire() {
    let network = Network::new().await;
    let product = network.world.product(100).await;
    let instance = network.start(&["--sweep-period-ms", "100"]).await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;
                  create trigger refuse before update on holds
                  for each row when (new.status = 'expired') execute function refuse()";
    sqlx::raw_sql(refuse).execute(&network.world.pool).await.unwrap();
    network.client.create("A", &[(product, 1)]).await;
    assert_eq!(network.client.answer().await["event"], "StockReserved");
    network.world.let_holds_run_out().await;
    eventually("it tells", async || {
        let reason = instance.health().await["dependencies"]["background-work"]["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.starts_with("expired holds have failed for"))
    })
    .await;
    assert!(instance.is_ready().await, "it can work");
    instance.stop().await;
}
