//! What a service needs the broker to have. Every argument is written out, so that RabbitMQ 3.10 and 4.x agree.

use std::collections::BTreeSet;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use crate::session::answered;

/// How often a message may come back because a consumer's connection died before it is dead-lettered by the broker.
/// It is RabbitMQ 4's own default, and stops a message that kills the process.
const DELIVERY_LIMIT: i32 = 20;

/// Looking at a dead letter counts as a delivery; none must be lost by being looked at.
const UNLIMITED_DELIVERIES: i32 = 1_000_000_000;

/// A queue somebody works through, and what flows into it.
#[derive(Debug, Clone, Copy)]
pub struct WorkQueue {
    /// The queue's name.
    pub name: &'static str,
    /// The topic exchange it is bound to.
    pub exchange: &'static str,
    /// With which keys.
    pub routing_keys: &'static [&'static str],
}

/// Declares the topic exchanges, the work queues with their bindings, and the dead-letter queue of each.
///
/// # Errors
/// When the connection breaks, the broker does not answer, or something of that name is there already with other
/// arguments.
pub async fn declare(connection: &Connection, exchanges: &[&str], queues: &[WorkQueue]) -> anyhow::Result<()> {
    let channel = answered(connection.create_channel()).await?;
    let exchanges: BTreeSet<&str> =
        exchanges.iter().copied().chain(queues.iter().map(|queue| queue.exchange)).collect();
    for exchange in exchanges {
        declare_exchange(&channel, exchange, ExchangeKind::Topic).await?;
    }
    declare_exchange(&channel, events::queues::DEAD_LETTERS, ExchangeKind::Direct).await?;
    for queue in queues {
        let dead = events::queues::dead(queue.name);
        declare_queue(&channel, &dead, dead_queue_arguments()).await?;
        bind(&channel, &dead, events::queues::DEAD_LETTERS, queue.name).await?;
        declare_queue(&channel, queue.name, work_queue_arguments(queue.name)).await?;
        for routing_key in queue.routing_keys {
            bind(&channel, queue.name, queue.exchange, routing_key).await?;
        }
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> anyhow::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    answered(channel.exchange_declare(name.into(), kind, durable, FieldTable::default())).await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> anyhow::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    answered(channel.queue_declare(name.into(), durable, arguments)).await?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, routing_key: &str) -> anyhow::Result<()> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    answered(channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, arguments)).await
}

/// At-least-once dead-lettering, so that the move to the dead-letter queue cannot lose the message either; RabbitMQ
/// asks for `reject-publish` with it.
fn work_queue_arguments(name: &str) -> FieldTable {
    arguments(&[
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(events::queues::DEAD_LETTERS)),
        ("x-dead-letter-routing-key", text(name)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ])
}

fn dead_queue_arguments() -> FieldTable {
    arguments(&[
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongInt(UNLIMITED_DELIVERIES)),
        ("x-overflow", text("reject-publish")),
    ])
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn arguments(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), value.clone());
    }
    table
}
