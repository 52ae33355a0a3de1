//! A message that cannot be handled, or whose answer reaches nobody, is in its dead-letter queue in the end, whatever state
//! that queue is in; and what the broker is told about queues.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dev::proxy::{Direction, Proxy};
use dev::testing::Vhost;
use events::queues;
use lapin::options::BasicGetOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use messaging::{Outgoing, PublishError, Publisher, Trace, topology};
use serde_json::json;
use tokio::time::timeout;

use crate::client::Client;
use crate::world::{DEADLINE, Instance, World, eventually};

const QUEUE: &str = queues::ORDER_CREATED;

/// An instance whose dead-letter queue is full.
struct Full {
    world: World,
    vhost: Vhost,
    client: Client,
    instance: Instance,
    product: i64,
}

impl Full {
    async fn start() -> Self {
        let (world, vhost) = (World::new().await, Vhost::create().unwrap());
        let product = world.product(100).await;
        let client = Client::connect(vhost.amqp_url()).await;
        let instance = world.start(&vhost, &[]).await;
        client.stop_listening_for_dead_letters().await;
        client.publish("order.created", b"first poison").await;
        eventually("the first is dead", async || client.depth(&queues::dead(QUEUE)).await == 1).await;
        vhost.management().limit_queue(vhost.name(), &queues::dead(QUEUE), 1).unwrap();
        eventually("the next is refused", async || !client.is_taken(queues::DEAD_LETTERS, QUEUE).await).await;
        Self { world, vhost, client, instance, product }
    }

    /// No session ends meanwhile.
    async fn are_dead_lettered_once_there_is_room(self, texts: &[&str]) {
        let (dead, channel) = (queues::dead(QUEUE), self.client.connection.create_channel().await.unwrap());
        self.vhost.management().raise_limit(self.vhost.name(), &dead).unwrap();
        let mut missing: BTreeSet<&str> = texts.iter().copied().collect();
        let begun = Instant::now();
        while !missing.is_empty() {
            assert!(begun.elapsed() < DEADLINE, "not dead-lettered: {missing:?}");
            let health = self.instance.health().await;
            assert_eq!(health["dependencies"]["rabbitmq"]["status"], "up", "{health}");
            match channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                Some(message) => {
                    let body = String::from_utf8_lossy(&message.data).into_owned();
                    missing.retain(|text| !body.contains(text));
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        self.instance.stop().await;
    }
}

/// The next order is answered within seconds all the same.
#[tokio::test]
async fn messages_whose_dead_letter_queue_is_full_are_kept_until_there_is_room_and_hold_up_no_order() {
    const WITHIN: Duration = Duration::from_secs(15);
    let full = Full::start().await;
    for n in 0..3 {
        full.client.publish("order.created", format!("poison {n}").as_bytes()).await;
        let order = format!("NEIGHBOUR-{n}");
        full.client.create(&order, &[(full.product, 1)]).await;
        let answer =
            timeout(WITHIN, full.client.answer()).await.expect("the order is answered while the queue is full");
        assert_eq!((&answer["event"], &answer["order_id"]), (&json!("StockReserved"), &json!(order)));
    }
    full.are_dead_lettered_once_there_is_room(&["poison 0", "poison 1", "poison 2"]).await;
}

#[tokio::test]
async fn a_message_whose_answer_nobody_gets_is_kept_until_the_dead_letter_queue_has_room() {
    let full = Full::start().await;
    full.client.stop_listening().await;
    full.client.create("UNHEARD", &[(full.product, 1)]).await;
    eventually("its stock is held", async || full.world.holds("held").await == 1).await;
    full.are_dead_lettered_once_there_is_room(&["UNHEARD"]).await;
}

#[tokio::test]
async fn a_dead_letter_that_no_queue_takes_is_published_again_once_one_is_bound() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(100).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let proxy = Proxy::start_for(vhost.amqp_url()).unwrap();
    let broker_url = proxy.in_front_of(vhost.amqp_url());
    // More batches than are in flight at once, so that one waits to be answered when the first cannot be settled.
    let instance = Instance::start(world.database.url(), &broker_url, &["--batch-max-messages", "1"]).await;
    proxy.delay(Direction::ToClient, Duration::from_millis(300));
    // The first one is taken alone.
    client.create("FIRST", &[(product, 1)]).await;
    assert_eq!(client.answer().await["order_id"], "FIRST");
    client.stop_listening_for_dead_letters().await;
    let dead = queues::dead(QUEUE);
    let channel = client.connection.create_channel().await.unwrap();
    let (name, exchange, key) = (dead.as_str().into(), queues::DEAD_LETTERS.into(), QUEUE.into());
    channel.queue_unbind(name, exchange, key, FieldTable::default()).await.unwrap();
    client.publish("order.created", b"poison").await;
    for n in 0..20 {
        client.create(&format!("NEIGHBOUR-{n}"), &[(product, 1)]).await;
    }
    eventually("it is dead-lettered", async || client.depth(&dead).await == 1).await;
    eventually("its neighbours have their stock", async || world.holds("held").await == 21).await;
    instance.stop().await;
}

/// RabbitMQ 4 limits deliveries to 20 where nothing is said, and dead-letters at most once.
#[tokio::test]
async fn queues_have_the_arguments_that_keep_messages() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let instance = world.start(&vhost, &[]).await;
    for queue in [queues::ORDER_CREATED, queues::ORDER_SETTLED] {
        let work = json!({
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": queues::DEAD_LETTERS,
            "x-dead-letter-routing-key": queue,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        });
        assert_eq!(vhost.management().queue_arguments(vhost.name(), queue).unwrap(), work);
        let dead = json!({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000, "x-overflow": "reject-publish"});
        assert_eq!(vhost.management().queue_arguments(vhost.name(), &queues::dead(queue)).unwrap(), dead);
        let retry = json!({
            "x-queue-type": "quorum",
            "x-delivery-limit": 1_000_000_000,
            "x-message-ttl": 3_600_000,
            "x-dead-letter-exchange": queues::replay(queue),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        });
        assert_eq!(vhost.management().queue_arguments(vhost.name(), &queues::retry(queue)).unwrap(), retry);
    }
    instance.stop().await;
}

#[tokio::test]
async fn a_broker_that_never_confirms_is_not_waited_for_without_a_bound() {
    let vhost = Vhost::create().unwrap();
    let proxy = Proxy::start_for(vhost.amqp_url()).unwrap();
    let url = proxy.in_front_of(vhost.amqp_url());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    topology::declare(&connection, &["inventory"], &[]).await.unwrap();
    let publisher = Publisher::open(&connection, "test").await.unwrap();
    proxy.silence_established_in(Direction::ToClient);
    let message = Outgoing::of(
        &events::inventory::StockRejected {
            order_id: crate::world::order_id("A"),
            reason: "test".to_owned(),
            shortages: Vec::new(),
        },
        Trace::start(),
    );
    let confirms = publisher.publish(&[message.unwrap()]).await.unwrap();
    let limit = Duration::from_secs(1);
    let waited = timeout(20 * limit, confirms.wait(limit)).await.expect("it gives up");
    assert!(matches!(waited, Err(PublishError::Unconfirmed(_))), "{waited:?}");
}
