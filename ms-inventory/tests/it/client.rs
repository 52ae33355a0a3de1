use std::sync::Arc;
use std::time::{Duration, Instant};

use events::queues;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind, Queue};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::world::DEADLINE;

/// An order service in another language, as far as ms-inventory can tell: it knows the contract, and nothing else.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    channel: Channel,
    answers: Mutex<Consumer>,
    dead: Mutex<Consumer>,
}

impl Client {
    pub(crate) async fn connect(amqp_url: &str) -> Self {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        exchange(&channel, "orders", ExchangeKind::Topic).await;
        exchange(&channel, "inventory", ExchangeKind::Topic).await;
        exchange(&channel, queues::DEAD_LETTERS, ExchangeKind::Direct).await;
        let answers = Mutex::new(listen(&channel, "inventory", &["stock.#"]).await);
        let dead = [queues::ORDER_CREATED, queues::ORDER_SETTLED];
        let dead = Mutex::new(listen(&channel, queues::DEAD_LETTERS, &dead).await);
        Self { connection, channel, answers, dead }
    }

    pub(crate) async fn publish(&self, routing_key: &str, body: &[u8]) {
        self.publish_with(routing_key, body, BasicProperties::default()).await;
    }

    pub(crate) async fn publish_with(&self, routing_key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = self.channel.basic_publish("orders".into(), routing_key.into(), options, body, properties).await;
        let confirmed = sent.unwrap().await.unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "nobody listens to {routing_key}");
    }

    pub(crate) async fn create(&self, order_id: &str, pairs: &[(i64, i64)]) {
        self.publish("order.created", created(order_id, pairs).as_bytes()).await;
    }

    /// Publishes an order; `false` if it reaches no queue.
    pub(crate) async fn try_create(&self, order_id: &str, pairs: &[(i64, i64)]) -> bool {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key, body) = ("orders".into(), "order.created".into(), created(order_id, pairs));
        let properties = BasicProperties::default();
        let sent = self.channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await;
        sent.unwrap().await.unwrap().take_message().is_none()
    }

    /// Deletes its queue of dead letters, so that only the service's own is left.
    pub(crate) async fn stop_listening_for_dead_letters(&self) {
        let queue = self.dead.lock().await.queue();
        self.channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    }

    /// Deletes the queue of answers.
    pub(crate) async fn stop_listening(&self) {
        let queue = self.answers.lock().await.queue();
        self.channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
    }

    /// Whether an exchange's queues take a message with this key.
    pub(crate) async fn is_taken(&self, exchange: &str, routing_key: &str) -> bool {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (exchange.into(), routing_key.into());
        let sent = self.channel.basic_publish(exchange, key, options, b"probe", BasicProperties::default()).await;
        sent.unwrap().await.unwrap().is_ack()
    }

    pub(crate) async fn cancel(&self, order_id: &str) {
        let body = format!(r#"{{"event":"OrderCancelled","order_id":"{order_id}","reason":"test"}}"#);
        self.publish("order.cancelled", body.as_bytes()).await;
    }

    /// The next answer.
    pub(crate) async fn answer(&self) -> Value {
        serde_json::from_slice(&self.answer_delivery().await.data).unwrap()
    }

    pub(crate) async fn answer_delivery(&self) -> Delivery {
        next(&self.answers, "an answer").await
    }

    /// The next dead letter.
    pub(crate) async fn dead_letter(&self) -> Delivery {
        next(&self.dead, "a dead letter").await
    }

    /// Whether nothing more comes: no answer and no dead letter while one more order makes the round trip.
    pub(crate) async fn assert_nothing_more_but(&self, marker: &str) {
        self.create(marker, &[]).await;
        let answer = self.answer().await;
        assert_eq!(answer["order_id"], marker, "{answer}");
        let dead = tokio::time::timeout(Duration::from_millis(100), self.dead.lock().await.next()).await;
        assert!(dead.is_err(), "{dead:?}");
    }

    /// How many messages wait in a queue, without those being worked on.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        self.look_at(queue).await.message_count()
    }

    /// How many consume a queue.
    pub(crate) async fn consumers(&self, queue: &str) -> u32 {
        self.look_at(queue).await.consumer_count()
    }

    async fn look_at(&self, queue: &str) -> Queue {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap()
    }
}

pub(crate) fn created(order_id: &str, pairs: &[(i64, i64)]) -> String {
    let line = |&(product, quantity): &(i64, i64)| format!(r#"{{"product_id":{product},"quantity":{quantity}}}"#);
    let items = pairs.iter().map(line).collect::<Vec<_>>().join(",");
    format!(r#"{{"event":"OrderCreated","order_id":"{order_id}","items":[{items}]}}"#)
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(name.into(), kind, durable, FieldTable::default()).await.unwrap();
}

async fn listen(channel: &Channel, exchange: &str, routing_keys: &[&str]) -> Consumer {
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await.unwrap();
    let name = queue.name().as_str();
    for key in routing_keys {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name.into(), exchange.into(), (*key).into(), options, arguments).await.unwrap();
    }
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    channel.basic_consume(name.into(), ShortString::default(), options, arguments).await.unwrap()
}

async fn next(consumer: &Mutex<Consumer>, what: &str) -> Delivery {
    let mut consumer = consumer.lock().await;
    let delivery = tokio::time::timeout(DEADLINE, consumer.next()).await;
    let delivery = delivery.unwrap_or_else(|_| panic!("{what} did not come")).unwrap().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    delivery
}

/// A client that outlives its broker: it places an order until the broker has confirmed it, and finds the answers in a
/// queue that survives.
#[derive(Clone)]
pub(crate) struct Customer {
    amqp_url: String,
    connected: Arc<Mutex<Option<Connected>>>,
}

struct Connected {
    _connection: Connection,
    channel: Channel,
    answers: Consumer,
}

impl Customer {
    const ANSWERS: &str = "answers.customer";

    pub(crate) async fn connect(amqp_url: &str) -> Self {
        let customer = Self { amqp_url: amqp_url.to_owned(), connected: Arc::default() };
        customer.until_done(async |_| Ok(())).await;
        customer
    }

    pub(crate) async fn place(&self, order_id: &str, pairs: &[(i64, i64)]) {
        let body = created(order_id, pairs);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        self.until_done(async |connected| {
            let (exchange, key, properties) = ("orders".into(), "order.created".into(), BasicProperties::default());
            let sent = connected.channel.basic_publish(
                exchange,
                key,
                options,
                body.as_bytes(),
                properties.with_delivery_mode(2),
            );
            let confirmed = sent.await?.await?;
            let heard = confirmed.is_ack() && confirmed.take_message().is_none();
            heard.then_some(()).ok_or_else(|| std::io::Error::other("nobody listens yet").into())
        })
        .await;
    }

    pub(crate) async fn answer(&self) -> Value {
        self.until_done(async |connected| {
            let closed = || lapin::Error::from(std::io::Error::other("closed"));
            let delivery = connected.answers.next().await.ok_or_else(closed)??;
            delivery.ack(BasicAckOptions::default()).await?;
            Ok(serde_json::from_slice(&delivery.data).unwrap())
        })
        .await
    }

    /// Tries on a new connection until it works, with a deadline.
    async fn until_done<T>(&self, action: impl AsyncFn(&mut Connected) -> lapin::Result<T>) -> T {
        let begun = Instant::now();
        let mut connected = self.connected.lock().await;
        loop {
            assert!(begun.elapsed() < DEADLINE, "the broker did not come back");
            let once = async {
                let connection = match connected.as_mut() {
                    Some(connected) => connected,
                    None => connected.insert(Connected::open(&self.amqp_url).await?),
                };
                action(connection).await
            };
            match tokio::time::timeout(Duration::from_secs(20), once).await {
                Ok(Ok(done)) => return done,
                Ok(Err(_)) | Err(_) => *connected = None,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Connected {
    async fn open(amqp_url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in ["orders", "inventory"] {
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let queue: ShortString = Customer::ANSWERS.into();
        channel.queue_declare(queue.clone(), durable, quorum).await?;
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.clone(), "inventory".into(), "stock.#".into(), options, FieldTable::default()).await?;
        let options = BasicConsumeOptions::default();
        let answers = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await?;
        Ok(Self { _connection: connection, channel, answers })
    }
}
