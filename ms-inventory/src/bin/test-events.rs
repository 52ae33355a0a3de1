//! Publishes orders that must be reserved, rejected, repeated, dead-lettered, released, sold and returned, as an order
//! service in any language would, and prints what came back and how long it took. Exits 1 on a surprise.
//!
//! It takes one unit of one product at a time for the moment it runs, and gives it back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use boot::config::{Broker, parse};
use clap::Parser;
use events::queues;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer, ExchangeKind};
use messaging::dead_letters::REASON_HEADER;
use serde_json::{Value, json};

/// Publish orders and check what ms-inventory answers.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    broker: Broker,

    /// Where ms-inventory is asked for a product to order.
    #[arg(long, env = "INVENTORY_URL", default_value = "http://127.0.0.1:8000")]
    inventory_url: String,

    /// How long to wait for each answer, in seconds.
    #[arg(long, default_value_t = 10)]
    timeout_seconds: u64,
}

/// A message, and what must come back.
struct Case {
    what: &'static str,
    routing_key: &'static str,
    body: Value,
    expected: Expected,
}

enum Expected {
    /// An answer that has all of these fields, with these values; null stands for a field that must be absent.
    Answer(Value),
    /// A dead letter whose reason contains this.
    DeadLetter(&'static str),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = parse::<Cli>();
    let timeout = Duration::from_secs(cli.timeout_seconds);
    let product = product(&cli.inventory_url, timeout).await?;
    let connection = ms_inventory::broker(&cli.broker)?.connect().await.context("cannot reach the broker")?;
    let mut service = OrderService::open(&connection, timeout).await.context("cannot set up the queues")?;

    println!("{:<30} {:<15} {:<54} {:>7}", "what", "sent", "came back", "ms");
    let mut surprises = 0;
    for case in cases(&product) {
        let begun = Instant::now();
        let (came, is_right) = match service.send(&case).await {
            Ok(came) => (came.to_string(), came.is(&case.expected)),
            Err(error) => (format!("{error:#}"), false),
        };
        let sent = case.body["event"].as_str().unwrap_or("not an event");
        let ms = begun.elapsed().as_secs_f64() * 1_000.0;
        println!("{:<30} {sent:<15} {came:<54} {ms:>7.1}{}", case.what, if is_right { "" } else { "  ← a surprise" });
        surprises += usize::from(!is_right);
    }
    ensure!(surprises == 0, "{surprises} surprises");
    println!("all as expected, with product {}", product["name"]);
    Ok(())
}

fn cases(product: &Value) -> Vec<Case> {
    let run = uuid::Uuid::now_v7().simple();
    let id: i64 = product["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
    let [first, second, third, fourth, fifth, sixth, seventh] =
        ["A", "B", "C", "D", "E", "F", "G"].map(|letter| format!("TEST-{run}-{letter}"));
    let order = |order_id: &str, product_id: i64, quantity: i64| {
        let items = json!([{"product_id": product_id, "quantity": quantity}]);
        json!({"event": "OrderCreated", "order_id": order_id, "items": items})
    };
    let cancel = |order_id: &str| json!({"event": "OrderCancelled", "order_id": order_id, "reason": "test-events"});
    let complete = |order_id: &str, quantity: i64| {
        let items = json!([{"product_id": id, "quantity": quantity}]);
        json!({"event": "OrderCompleted", "order_id": order_id, "items": items})
    };
    let refund = |order_id: &str| json!({"event": "OrderRefunded", "order_id": order_id, "reason": "test-events"});
    let answer = |event: &str, order_id: &str| json!({"event": event, "order_id": order_id});
    // What is sold has no end any more.
    let sold = |order_id: &str| json!({"event": "StockReserved", "order_id": order_id, "expires_at": null});
    let released =
        |order_id: &str, cause: &str| json!({"event": "StockReleased", "order_id": order_id, "cause": cause});
    let rejected =
        |order_id: &str, reason: &str| json!({"event": "StockRejected", "order_id": order_id, "reason": reason});
    const CREATED: &str = "order.created";
    const CANCELLED: &str = "order.cancelled";
    const COMPLETED: &str = "order.completed";
    const REFUNDED: &str = "order.refunded";
    let case = |what, routing_key, body, expected| Case { what, routing_key, body, expected };
    let too_many = events::MAX_QUANTITY;
    vec![
        case("an order for one", CREATED, order(&first, id, 1), Expected::Answer(answer("StockReserved", &first))),
        case("the same order again", CREATED, order(&first, id, 1), Expected::Answer(answer("StockReserved", &first))),
        case("the same id, other items", CREATED, order(&first, id, 2), Expected::DeadLetter("conflict")),
        case(
            "more than there is",
            CREATED,
            order(&second, id, too_many),
            Expected::Answer(rejected(&second, "Insufficient stock")),
        ),
        case(
            "a product nobody knows",
            CREATED,
            order(&third, i64::MAX, 1),
            Expected::Answer(rejected(&third, "Unknown product 9223372036854775807")),
        ),
        case(
            "no items",
            CREATED,
            json!({"event": "OrderCreated", "order_id": fourth, "items": []}),
            Expected::Answer(rejected(&fourth, "No items")),
        ),
        case("not the contract", CREATED, json!({"order": "something"}), Expected::DeadLetter("missing field `event`")),
        case(
            "the rejected order again",
            CREATED,
            order(&second, id, too_many),
            Expected::Answer(rejected(&second, "Insufficient stock")),
        ),
        case(
            "the first order is cancelled",
            CANCELLED,
            cancel(&first),
            Expected::Answer(released(&first, "cancelled")),
        ),
        case(
            "the cancelled order again",
            CREATED,
            order(&first, id, 1),
            Expected::Answer(released(&first, "cancelled")),
        ),
        case("another order for one", CREATED, order(&fifth, id, 1), Expected::Answer(answer("StockReserved", &fifth))),
        case("it is paid", COMPLETED, complete(&fifth, 1), Expected::Answer(sold(&fifth))),
        case("it is paid, said again", COMPLETED, complete(&fifth, 1), Expected::Answer(sold(&fifth))),
        case("the sold order again", CREATED, order(&fifth, id, 1), Expected::Answer(sold(&fifth))),
        case("it is refunded", REFUNDED, refund(&fifth), Expected::Answer(released(&fifth, "refunded"))),
        case("the refunded order again", CREATED, order(&fifth, id, 1), Expected::Answer(released(&fifth, "refunded"))),
        case("an order that comes paid", COMPLETED, complete(&sixth, 1), Expected::Answer(sold(&sixth))),
        case("it is refunded too", REFUNDED, refund(&sixth), Expected::Answer(released(&sixth, "refunded"))),
        case(
            "paid, and not to be had",
            COMPLETED,
            complete(&seventh, too_many),
            Expected::Answer(rejected(&seventh, "Insufficient stock")),
        ),
    ]
}

/// A product of which at least one can be sold.
async fn product(inventory_url: &str, timeout: Duration) -> anyhow::Result<Value> {
    let query = "{ products(first: 1, filter: {minAvailable: 1}) { nodes { id name } } }";
    let asked = boot::neighbour::client(None)?
        .build()?
        .post(format!("{inventory_url}/graphql"))
        .timeout(timeout)
        .json(&json!({"query": query}))
        .send();
    let answer: Value = asked.await.with_context(|| format!("cannot ask {inventory_url}"))?.json().await?;
    let product = answer["data"]["products"]["nodes"][0].clone();
    ensure!(product["id"].is_string(), "there is no product in stock; run `cargo run --bin seed-data`: {answer}");
    Ok(product)
}

/// What came back.
enum Came {
    Answer(Value),
    DeadLetter(String),
}

impl Came {
    fn is(&self, expected: &Expected) -> bool {
        match (self, expected) {
            (Self::Answer(came), Expected::Answer(fields)) => {
                fields.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| came[name] == *value))
            }
            (Self::DeadLetter(reason), Expected::DeadLetter(part)) => reason.contains(part),
            _ => false,
        }
    }
}

impl std::fmt::Display for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(answer) => {
                let event = answer["event"].as_str().unwrap_or("no event");
                match answer["reason"].as_str().or(answer["cause"].as_str()) {
                    Some(reason) => write!(f, "{event}: {reason:.38}"),
                    None => f.write_str(event),
                }
            }
            Self::DeadLetter(reason) => write!(f, "dead letter: {reason:.40}"),
        }
    }
}

/// The little an order service needs: a channel to publish on, a queue for answers, and one for dead letters.
struct OrderService {
    channel: Channel,
    answers: Consumer,
    dead_letters: Consumer,
    timeout: Duration,
}

impl OrderService {
    async fn open(connection: &Connection, timeout: Duration) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let topic = ExchangeKind::Topic;
        let answers = listen(&channel, events::inventory::EXCHANGE, topic, &["stock.#"]).await?;
        let dead = [queues::ORDER_CREATED, queues::ORDER_SETTLED];
        let dead_letters = listen(&channel, queues::DEAD_LETTERS, ExchangeKind::Direct, &dead).await?;
        Ok(Self { channel, answers, dead_letters, timeout })
    }

    /// Publishes a message, and waits for what comes back to it; what belongs to others is passed over.
    async fn send(&mut self, case: &Case) -> anyhow::Result<Came> {
        let body = case.body.to_string();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (events::orders::EXCHANGE.into(), case.routing_key.into());
        let sent = self.channel.basic_publish(exchange, key, options, body.as_bytes(), BasicProperties::default());
        let confirmed = sent.await?.await?;
        ensure!(confirmed.take_message().is_none(), "nobody listens to {}", case.routing_key);

        let timeout = self.timeout;
        let coming = async {
            loop {
                tokio::select! {
                    Some(answer) = self.answers.next() => {
                        let answer: Value = serde_json::from_slice(&answer?.data)?;
                        if answer["order_id"] == case.body["order_id"] {
                            return Ok(Came::Answer(answer));
                        }
                    }
                    Some(letter) = self.dead_letters.next() => {
                        let letter = letter?;
                        if letter.data == body.as_bytes() {
                            return Ok(Came::DeadLetter(reason(&letter)));
                        }
                    }
                    else => anyhow::bail!("the broker hung up"),
                }
            }
        };
        tokio::time::timeout(timeout, coming).await.unwrap_or_else(|_| anyhow::bail!("nothing within {timeout:?}"))
    }
}

async fn listen(channel: &Channel, exchange: &str, kind: ExchangeKind, keys: &[&str]) -> lapin::Result<Consumer> {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await?;
    for key in keys {
        let (name, options) = (queue.name().clone(), QueueBindOptions::default());
        channel.queue_bind(name, exchange.into(), (*key).into(), options, FieldTable::default()).await?;
    }
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    channel.basic_consume(queue.name().clone(), ShortString::default(), options, FieldTable::default()).await
}

fn reason(letter: &Delivery) -> String {
    match letter.properties.headers().as_ref().and_then(|headers| headers.inner().get(REASON_HEADER)) {
        Some(AMQPValue::LongString(reason)) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        _ => "none given".into(),
    }
}
