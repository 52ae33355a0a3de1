//! What strangers on the same broker or database do must not cost good orders.

use dev::testing::Vhost;
use events::queues;
use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use messaging::Fault;

use crate::client::Client;
use crate::world::{World, eventually};

/// A header of almost a frame: with a reason beside it, it would be more than one.
#[tokio::test]
async fn a_header_that_fills_its_frame_leaves_room_for_the_reason() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(10).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &[]).await;
    let mut headers = FieldTable::default();
    headers.insert("x".into(), AMQPValue::LongString(LongString::from(vec![b'a'; 131_000])));
    let properties = BasicProperties::default().with_headers(headers).with_message_id("mine".into());
    client.publish_with("order.created", b"poison", properties).await;
    let letter = client.dead_letter().await;
    assert_eq!(letter.data, b"poison");
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "mine");
    client.create("A", &[(product, 1)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved");
}

/// A full queue of a stranger, bound to these keys: whatever reaches it is refused.
struct Full {
    _connection: Connection,
    channel: Channel,
}

impl Full {
    const QUEUE: &str = "full";

    async fn bind(vhost: &Vhost, routing_key: &str) -> Self {
        let connection = Connection::connect(vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        channel.queue_declare(Self::QUEUE.into(), options, arguments).await.unwrap();
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(Self::QUEUE.into(), "inventory".into(), routing_key.into(), options, arguments)
            .await
            .unwrap();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), Self::QUEUE.into(), options, b"x", properties).await.unwrap();
        Self { _connection: connection, channel }
    }

    async fn remove(self) {
        self.channel.queue_delete(Self::QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_strangers_full_queue_holds_up_only_the_events_it_wants() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(10).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &["--outbox-period-ms", "20"]).await;
    let full = Full::bind(&vhost, "product.#").await;
    sqlx::raw_sql(
        "insert into outbox (message_id, exchange, routing_key, event, key, body, mandatory, traceparent)
         values (gen_random_uuid(), 'inventory', 'product.changed', 'ProductChanged', 'product/1', '{}', false, '')",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let tries = async || -> i32 {
        let tries = sqlx::query_scalar("select attempts from outbox").fetch_optional(&world.pool).await.unwrap();
        tries.unwrap_or_default()
    };
    eventually("the event was refused", async || tries().await > 0).await;
    assert!(instance.is_ready().await, "the session goes on");
    client.create("A", &[(product, 1)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved");
    full.remove().await;
    eventually("the event left", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&world.pool).await.unwrap();
        left == 0
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_refused_is_published_again() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(10).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    let full = Full::bind(&vhost, "stock.#").await;
    client.create("A", &[(product, 1)]).await;
    // Those who have room get it each time.
    let (first, second) = (client.answer().await, client.answer().await);
    assert_eq!(first, second);
    full.remove().await;
    client.create("B", &[(product, 1)]).await;
    let mut answer = client.answer().await;
    while answer["order_id"] == "A" {
        answer = client.answer().await;
    }
    assert_eq!(answer["order_id"], "B");
    instance.stop().await;
    assert_eq!(client.depth(queues::ORDER_CREATED).await, 0, "both are acknowledged");
    assert_eq!(client.depth("order.created.inventory.dead").await, 0);
}

#[tokio::test]
async fn a_statement_that_took_too_long_once_costs_no_order() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(5).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let _instance = world.start(&vhost, &["--database-statement-timeout-seconds", "1"]).await;
    sqlx::raw_sql(
        "create sequence slow;
         create function slow() returns trigger language plpgsql as $$
         begin if nextval('slow') <= 1 then perform pg_sleep(30); end if; return null; end $$;
         create trigger slow before insert on holds for each statement execute function slow()",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    client.create("A", &[(product, 1)]).await;
    assert_eq!(client.answer().await["event"], "StockReserved");
}

/// As when the migration of a newer version has run, or a grant was lost.
#[tokio::test]
async fn a_schema_that_does_not_fit_is_waited_for() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(5).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(&vhost, &[]).await;
    sqlx::raw_sql("alter table holds rename column reason to why").execute(&world.pool).await.unwrap();
    client.create("A", &[(product, 1)]).await;
    eventually("the order is tried more than once", async || retried(&instance.url).await >= 3).await;
    sqlx::raw_sql("alter table holds rename column why to reason").execute(&world.pool).await.unwrap();
    assert_eq!(client.answer().await["event"], "StockReserved");
    assert_eq!(client.depth("order.created.inventory.dead").await, 0);
}

/// How many messages had to wait, in this process.
async fn retried(url: &str) -> u64 {
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let counter = "messages_retried_total{queue=\"order.created.inventory\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(counter)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_transaction_that_idled_too_long_is_the_servers_fault() {
    let world = World::new().await;
    let mut tx = world.pool.begin().await.unwrap();
    sqlx::raw_sql("set local idle_in_transaction_session_timeout = 10").execute(&mut *tx).await.unwrap();
    eventually("the session is ended", async || {
        let idle = "select count(*) from pg_stat_activity where state = 'idle in transaction' and datname = current_database()";
        let idle: i64 = sqlx::query_scalar(idle).fetch_one(&world.pool).await.unwrap();
        idle == 0
    })
    .await;
    let error = sqlx::query("select 1").execute(&mut *tx).await.unwrap_err();
    assert!(matches!(Fault::from(error), Fault::Server(_)));
}
