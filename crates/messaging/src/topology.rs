//! What a service needs the broker to have. Every argument is written out, so that RabbitMQ 3.10 and 4.x agree.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use lapin::options::{ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use tokio_util::sync::CancellationToken;

use crate::session::{answered, is_blocked};

/// How often a message may come back because a consumer's connection died before it is dead-lettered by the broker.
/// It is RabbitMQ 4's own default, and stops a message that kills the process.
pub(crate) const DELIVERY_LIMIT: i32 = 20;

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

/// Declares the topic exchanges a service publishes to, its work queues with their bindings, and of each the dead-letter
/// queue, the retry queue, and the way back from both.
///
/// What is not the service's own, the exchanges of others and the one for dead letters, is declared only where it is
/// missing: a login that may change its own things and no others is refused even to repeat what is there.
///
/// # Errors
/// When the connection breaks, the broker does not answer, a permission is missing, or something of that name is there
/// already with other arguments.
pub async fn declare(connection: &Connection, exchanges: &[&str], queues: &[WorkQueue]) -> anyhow::Result<()> {
    let own: BTreeSet<&str> = exchanges.iter().copied().collect();
    let sources: BTreeSet<&str> = queues.iter().map(|queue| queue.exchange).collect();
    let declaring = Declaring::open(connection).await?;
    for exchange in &own {
        declaring.exchange(exchange, ExchangeKind::Topic).await?;
    }
    for exchange in sources.difference(&own) {
        find_exchange(connection, exchange, ExchangeKind::Topic).await?;
    }
    find_exchange(connection, events::queues::DEAD_LETTERS, ExchangeKind::Direct).await?;
    for queue in queues {
        let (dead, replay) = (events::queues::dead(queue.name), events::queues::replay(queue.name));
        declaring.queue(&dead, dead_queue_arguments()).await?;
        declaring.bind(&dead, events::queues::DEAD_LETTERS, queue.name).await?;
        declaring.queue(queue.name, work_queue_arguments(queue.name)).await?;
        for routing_key in queue.routing_keys {
            declaring.bind(queue.name, queue.exchange, routing_key).await?;
        }
        declaring.exchange(&replay, ExchangeKind::Fanout).await?;
        declaring.bind(queue.name, &replay, "").await?;
        let retry = events::queues::retry(queue.name);
        declaring.queue(&retry, retry_queue_arguments(&replay)).await?;
        declaring.bind(&retry, events::queues::DEAD_LETTERS, &retry).await?;
    }
    for exchange in own.into_iter().chain([events::queues::DEAD_LETTERS]) {
        declaring.may_publish(exchange).await?;
    }
    declaring.close().await
}

/// How often a running service repeats its declarations.
const PERIOD: Duration = Duration::from_secs(10);

/// Repeats [`declare`] until `stop`, so that an exchange that was deleted or a binding that was removed is there again
/// within seconds. The broker tells nobody that they are gone.
///
/// # Errors
/// Those of [`declare`].
pub async fn keep(
    connection: &Connection,
    exchanges: &[&str],
    queues: &[WorkQueue],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        // A broker short of memory or disk answers nobody who has published.
        if !is_blocked(connection.status()) {
            declare(connection, exchanges, queues).await?;
        }
    }
    Ok(())
}

/// Makes sure that an exchange is there. To look needs no permission.
async fn find_exchange(connection: &Connection, name: &str, kind: ExchangeKind) -> anyhow::Result<()> {
    // What is missing costs the channel on which it is looked for.
    let looking = Declaring::open(connection).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let found = looking.channel.exchange_declare(name.into(), kind.clone(), passive, FieldTable::default());
    match answered(connection, found).await {
        Ok(()) => looking.close().await,
        Err(error) if is_missing(&error) => {
            Declaring::open(connection).await?.exchange(name, kind).await.context("an exchange is missing")
        }
        found => found.with_context(|| format!("cannot look for the exchange {name}")),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<lapin::Error>().map(lapin::Error::kind);
    matches!(kind, Some(ErrorKind::ProtocolError(error)) if *error.kind() == AMQPSoftError::NOTFOUND.into())
}

/// A channel on which things are declared.
struct Declaring<'c> {
    connection: &'c Connection,
    channel: Channel,
}

impl<'c> Declaring<'c> {
    async fn open(connection: &'c Connection) -> anyhow::Result<Self> {
        Ok(Self { connection, channel: answered(connection, connection.create_channel()).await? })
    }

    async fn close(self) -> anyhow::Result<()> {
        const SUCCESS: u16 = 200;
        answered(self.connection, self.channel.close(SUCCESS, "declared".into())).await
    }

    async fn exchange(&self, name: &str, kind: ExchangeKind) -> anyhow::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declaring = self.channel.exchange_declare(name.into(), kind, durable, FieldTable::default());
        answered(self.connection, declaring).await.with_context(|| format!("cannot declare the exchange {name}"))
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> anyhow::Result<()> {
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let declaring = self.channel.queue_declare(name.into(), durable, arguments);
        answered(self.connection, declaring).await.with_context(|| format!("cannot declare the queue {name}"))?;
        Ok(())
    }

    async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> anyhow::Result<()> {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let binding = self.channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, arguments);
        let bound = answered(self.connection, binding).await;
        bound.with_context(|| format!("cannot bind the queue {queue} to the exchange {exchange}"))
    }

    /// Makes sure that this login may publish to an exchange: it takes away a binding to it that was never there, for which
    /// the broker asks for the same permission. To be refused with the first answer would be too late: its delivery would
    /// come back until it counts as poison.
    async fn may_publish(&self, exchange: &str) -> anyhow::Result<()> {
        const NEVER_BOUND: &str = "may-publish";
        let (source, options) = (events::queues::DEAD_LETTERS.into(), ExchangeUnbindOptions::default());
        let asking =
            self.channel.exchange_unbind(exchange.into(), source, NEVER_BOUND.into(), options, FieldTable::default());
        answered(self.connection, asking).await.with_context(|| format!("cannot publish to the exchange {exchange}"))
    }
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

/// After how long the broker returns a message from a retry queue that has no expiration of its own, because somebody has put it
/// there by hand: those behind it wait for it. In milliseconds.
const LONGEST_RETRY: i32 = 3_600_000;

/// A message that expires here goes through `replay`, back to its queue.
fn retry_queue_arguments(replay: &str) -> FieldTable {
    arguments(&[
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongInt(UNLIMITED_DELIVERIES)),
        ("x-message-ttl", AMQPValue::LongInt(LONGEST_RETRY)),
        ("x-dead-letter-exchange", text(replay)),
        ("x-dead-letter-strategy", text("at-least-once")),
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
