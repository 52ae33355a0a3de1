use events::queues;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use messaging::dead_letters::REASON_HEADER;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::world::DEADLINE;

/// An inventory in another language, as far as ms-orders can tell: it knows the contract, and nothing else.
pub(crate) struct Inventory {
    connection: Connection,
    channel: Channel,
    orders: Mutex<Consumer>,
    dead: Mutex<Consumer>,
}

impl Inventory {
    pub(crate) async fn connect(amqp_url: &str) -> Self {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        exchange(&channel, "orders", ExchangeKind::Topic).await;
        exchange(&channel, "inventory", ExchangeKind::Topic).await;
        exchange(&channel, queues::DEAD_LETTERS, ExchangeKind::Direct).await;
        let orders = Mutex::new(listen(&channel, "orders", &["order.#"]).await);
        let dead = [queues::STOCK_OUTCOMES, queues::PRODUCT_CHANGES];
        let dead = Mutex::new(listen(&channel, queues::DEAD_LETTERS, &dead).await);
        Self { connection, channel, orders, dead }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub(crate) async fn publish(&self, routing_key: &str, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default();
        let sent = self.channel.basic_publish("inventory".into(), routing_key.into(), options, body, properties).await;
        let confirmed = sent.unwrap().await.unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "nobody listens to {routing_key}");
    }

    pub(crate) async fn reserve(&self, order_id: &str) {
        self.publish("stock.reserved", reserved(order_id).to_string().as_bytes()).await;
    }

    pub(crate) async fn sell(&self, order_id: &str) {
        self.publish("stock.reserved", sold(order_id).to_string().as_bytes()).await;
    }

    pub(crate) async fn reject(&self, order_id: &str) {
        self.publish("stock.rejected", rejected(order_id).to_string().as_bytes()).await;
    }

    pub(crate) async fn release(&self, order_id: &str, cause: &str) {
        self.publish("stock.released", released(order_id, cause).to_string().as_bytes()).await;
    }

    /// The next event of an order.
    pub(crate) async fn event(&self) -> Value {
        serde_json::from_slice(&self.event_delivery().await.data).unwrap()
    }

    pub(crate) async fn event_delivery(&self) -> Delivery {
        next(&self.orders, "an event").await
    }

    /// The next dead letter, and why it is dead.
    pub(crate) async fn dead_letter(&self) -> (Delivery, String) {
        let letter = next(&self.dead, "a dead letter").await;
        let headers = letter.properties.headers().as_ref().unwrap();
        let reason = match headers.inner().get(REASON_HEADER).unwrap() {
            AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        (letter, reason)
    }
}

/// So far away that no test sees it.
pub(crate) const EXPIRES_AT: &str = "2126-11-27T00:15:00+00:00";

/// What inventory says of an order that is held for a time.
pub(crate) fn reserved(order_id: &str) -> Value {
    let items = json!([{"product_id": 1, "quantity": 2}]);
    json!({"event": "StockReserved", "order_id": order_id, "items": items, "expires_at": EXPIRES_AT})
}

/// What it says of one that is sold.
pub(crate) fn sold(order_id: &str) -> Value {
    let items = json!([{"product_id": 1, "quantity": 2}]);
    json!({"event": "StockReserved", "order_id": order_id, "items": items})
}

pub(crate) fn rejected(order_id: &str) -> Value {
    let shortages = json!([{"product_id": 1, "requested": 2, "available": 1}]);
    json!({"event": "StockRejected", "order_id": order_id, "reason": "Insufficient stock", "shortages": shortages})
}

pub(crate) fn released(order_id: &str, cause: &str) -> Value {
    let items = json!([{"product_id": 1, "quantity": 2}]);
    json!({"event": "StockReleased", "order_id": order_id, "items": items, "cause": cause})
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
