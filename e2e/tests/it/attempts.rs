//! What a login may do at the broker, by trying it.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};

/// What the broker says to an attempt.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Allowed,
    Refused,
}

use Answer::{Allowed, Refused};

/// A login in strange hands.
pub(crate) struct Login(Connection);

impl Login {
    pub(crate) async fn at(amqp_url: &str) -> Self {
        Self(Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap())
    }

    /// On a channel of its own: what is refused ends the channel.
    async fn attempt(&self, attempt: impl AsyncFnOnce(&Channel) -> lapin::Result<()>) -> Answer {
        let channel = self.0.create_channel().await.unwrap();
        let Err(error) = attempt(&channel).await else { return Allowed };
        let refused = matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == AMQPSoftError::ACCESSREFUSED.into());
        assert!(refused, "{error}");
        Refused
    }

    pub(crate) async fn publish(&self, exchange: &str, key: &str) -> Answer {
        self.attempt(async |channel| {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish(exchange.into(), key.into(), options, b"", properties).await?.await.map(drop)
        })
        .await
    }

    pub(crate) async fn consume(&self, queue: &str) -> Answer {
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consume = async |channel: &Channel| {
            channel.basic_consume(queue.into(), "".into(), options, arguments).await.map(drop)
        };
        self.attempt(consume).await
    }

    pub(crate) async fn get(&self, queue: &str) -> Answer {
        self.attempt(async |channel| channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop)).await
    }

    pub(crate) async fn purge(&self, queue: &str) -> Answer {
        self.attempt(async |channel| channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.map(drop))
            .await
    }

    pub(crate) async fn delete_queue(&self, queue: &str) -> Answer {
        self.attempt(async |channel| channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop))
            .await
    }

    pub(crate) async fn delete_exchange(&self, exchange: &str) -> Answer {
        self.attempt(async |channel| channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await)
            .await
    }

    pub(crate) async fn declare_queue(&self, name: &str) -> Answer {
        let (options, arguments) = (QueueDeclareOptions::default(), FieldTable::default());
        self.attempt(async |channel| channel.queue_declare(name.into(), options, arguments).await.map(drop)).await
    }

    pub(crate) async fn declare_exchange(&self, name: &str) -> Answer {
        let (options, arguments) = (ExchangeDeclareOptions::default(), FieldTable::default());
        let declare = async |channel: &Channel| {
            channel.exchange_declare(name.into(), ExchangeKind::Topic, options, arguments).await
        };
        self.attempt(declare).await
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str) -> Answer {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bind = async |channel: &Channel| {
            channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, arguments).await
        };
        self.attempt(bind).await
    }

    pub(crate) async fn bind_exchange(&self, to: &str, from: &str) -> Answer {
        let (options, arguments) = (ExchangeBindOptions::default(), FieldTable::default());
        let bind = async |channel: &Channel| {
            channel.exchange_bind(to.into(), from.into(), "#".into(), options, arguments).await
        };
        self.attempt(bind).await
    }
}
