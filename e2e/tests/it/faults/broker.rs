//! The test's own, unbroken connection to the broker: it publishes orders, collects what is answered, and deletes what
//! the services have declared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use events::queues;
use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

/// How long one message is published again until the broker has routed and confirmed it.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(90);

/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The most messages that are read from one dead-letter queue.
const MAX_DEAD_LETTERS: usize = 10_000;

/// What inventory has answered to one order.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// The items of each StockReserved.
    pub(super) reserved: Vec<Value>,
    /// How often it was rejected.
    pub(super) rejected: usize,
}

/// A message that was dead-lettered.
#[derive(Clone, Debug)]
pub(super) struct DeadLetter {
    /// The queue it could not be handled from.
    pub(super) queue: &'static str,
    pub(super) message_id: Option<String>,
    pub(super) order_id: Option<String>,
    /// None where neither we nor the broker gave any.
    pub(super) reason: Option<String>,
}

/// The answers by order.
pub(super) type AllAnswers = BTreeMap<String, Answers>;

pub(super) struct Broker {
    amqp_url: String,
    /// Collects the answers, and does nothing that the broker could answer with the end of the connection.
    collecting: Connection,
    answers_queue: ShortString,
    answers: Arc<Mutex<AllAnswers>>,
    dead_letters: Mutex<Vec<DeadLetter>>,
    publishing: tokio::sync::Mutex<Option<(Connection, Channel)>>,
}

impl Broker {
    pub(super) async fn open(amqp_url: &str) -> Self {
        let collecting = connect(amqp_url).await.unwrap();
        let channel = collecting.create_channel().await.unwrap();
        let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await.unwrap();
        let answers_queue = queue.name().clone();
        let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consuming =
            channel.basic_consume(answers_queue.clone(), ShortString::default(), no_ack, FieldTable::default());
        let mut deliveries = consuming.await.unwrap();
        let answers = Arc::new(Mutex::new(AllAnswers::new()));
        let collected = Arc::clone(&answers);
        tokio::spawn(async move {
            let _channel = channel;
            while let Some(Ok(delivery)) = deliveries.next().await {
                collect(&mut collected.lock().unwrap(), &delivery.data);
            }
        });
        let (dead_letters, publishing) = (Mutex::default(), tokio::sync::Mutex::default());
        let amqp_url = amqp_url.to_owned();
        let broker = Self { amqp_url, collecting, answers_queue, answers, dead_letters, publishing };
        broker.bind_answers().await;
        broker
    }

    /// Makes sure that answers are collected, also after the exchange was deleted. It may be deleted again at the same time.
    pub(super) async fn bind_answers(&self) {
        let begun = Instant::now();
        while let Err(error) = self.try_bind_answers().await {
            assert!(begun.elapsed() < PUBLISH_DEADLINE, "answers cannot be bound: {error}");
        }
    }

    async fn try_bind_answers(&self) -> lapin::Result<()> {
        let exchange = events::inventory::EXCHANGE;
        let channel = self.collecting.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let arguments = FieldTable::default();
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, arguments).await?;
        for key in ["stock.reserved", "stock.rejected", "stock.released"] {
            let (queue, options) = (self.answers_queue.clone(), QueueBindOptions::default());
            channel.queue_bind(queue, exchange.into(), key.into(), options, FieldTable::default()).await?;
        }
        channel.close(200, "bye".into()).await
    }

    /// What was answered so far.
    pub(super) fn answers(&self) -> AllAnswers {
        self.answers.lock().unwrap().clone()
    }

    /// Publishes a message as an OrderCreated, again and again until the broker has routed and confirmed it.
    pub(super) async fn publish(&self, message_id: &str, body: &[u8]) {
        let begun = Instant::now();
        while !matches!(tokio::time::timeout(TRY_TIMEOUT, self.try_publish(message_id, body)).await, Ok(Ok(true))) {
            assert!(begun.elapsed() < PUBLISH_DEADLINE, "the broker does not take {message_id}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether the message was routed and confirmed.
    async fn try_publish(&self, message_id: &str, body: &[u8]) -> lapin::Result<bool> {
        const PERSISTENT: u8 = 2;
        let channel = self.publishing_channel().await?;
        let properties = BasicProperties::default().with_message_id(message_id.into()).with_delivery_mode(PERSISTENT);
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publishing =
            channel.basic_publish(events::orders::EXCHANGE.into(), "order.created".into(), mandatory, body, properties);
        Ok(matches!(publishing.await?.await?, Confirmation::Ack(None)))
    }

    /// The broker closes the channel when the exchange is missing, and the connection when another message was on its way
    /// then. Both are replaced here.
    async fn publishing_channel(&self) -> lapin::Result<Channel> {
        let mut current = self.publishing.lock().await;
        if let Some((_, channel)) = current.as_ref().filter(|(_, channel)| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let connection = connect(&self.amqp_url).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        *current = Some((connection, channel.clone()));
        Ok(channel)
    }

    /// Deletes an exchange with all of its bindings.
    pub(super) async fn delete_exchange(&self, exchange: &str) {
        let connection = connect(&self.amqp_url).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    /// Removes a binding of a queue.
    pub(super) async fn remove_binding(&self, queue: &str, exchange: &str, key: &str) {
        let connection = connect(&self.amqp_url).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await.unwrap();
    }

    /// How many messages of a work queue wait for a consumer.
    pub(super) async fn depth(&self, queue: &str) -> lapin::Result<u32> {
        let channel = self.collecting.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        channel.close(200, "bye".into()).await?;
        Ok(declared.message_count())
    }

    /// Takes all messages from the dead-letter queue of a queue, and keeps them.
    pub(super) async fn collect_dead_letters(&self, queue: &'static str) {
        let channel = self.collecting.create_channel().await.unwrap();
        for _ in 0..MAX_DEAD_LETTERS {
            let getting = channel.basic_get(queues::dead(queue).into(), BasicGetOptions { no_ack: true });
            let Some(message) = getting.await.unwrap() else { break };
            let headers = message.properties.headers().as_ref();
            let header = |name: &str| headers.and_then(|headers| headers.inner().get(name)).and_then(text);
            let body: Value = serde_json::from_slice(&message.data).unwrap_or_default();
            self.dead_letters.lock().unwrap().push(DeadLetter {
                queue,
                message_id: message.properties.message_id().as_ref().map(ToString::to_string),
                order_id: body["order_id"].as_str().map(str::to_owned),
                reason: header("x-dead-letter-reason").or_else(|| header("x-first-death-reason")),
            });
        }
        channel.close(200, "bye".into()).await.unwrap();
    }

    /// What was dead-lettered, as far as it is collected.
    pub(super) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead_letters.lock().unwrap().clone()
    }
}

async fn connect(amqp_url: &str) -> lapin::Result<Connection> {
    Connection::connect(amqp_url, ConnectionProperties::default()).await
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn collect(answers: &mut AllAnswers, body: &[u8]) {
    let event: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(order_id) = event["order_id"].as_str() else { return };
    let answers = answers.entry(order_id.to_owned()).or_default();
    match event["event"].as_str() {
        Some("StockReserved") => answers.reserved.push(event["items"].clone()),
        Some("StockRejected") => answers.rejected += 1,
        _ => {}
    }
}
