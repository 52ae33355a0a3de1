use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use events::{Event, inventory, orders, queues};
use futures::stream::ReadyChunks;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm};
use messaging::topology::{self, WorkQueue};

use super::mix::order_of;
use super::run::Run;
use super::{Load, Measured, Mix, RESERVED};
use crate::machine::Watch;

const PERSISTENT: u8 = 2;

/// The most answers taken at once.
const CHUNK: usize = 1_000;

/// The most orders the broker may owe a confirm. It is never reached before the broker is overloaded; then it keeps
/// what is not yet sent out of this process's memory.
const UNCONFIRMED_MAX: usize = 10_000;

/// Connects, and declares the queues on both sides of ms-inventory just as the services do.
///
/// # Errors
/// When the broker is away or refuses.
pub async fn connect(amqp_url: &str, name: &str) -> Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connection = Connection::connect(amqp_url, properties).await?;
    let created = WorkQueue {
        name: queues::ORDER_CREATED,
        exchange: orders::EXCHANGE,
        routing_keys: &[orders::OrderCreated::ROUTING_KEY],
    };
    let outcomes = WorkQueue {
        name: queues::STOCK_OUTCOMES,
        exchange: inventory::EXCHANGE,
        routing_keys: &[RESERVED, inventory::StockRejected::ROUTING_KEY, inventory::StockReleased::ROUTING_KEY],
    };
    topology::declare(&connection, &[], &[created, outcomes]).await?;
    Ok(connection)
}

/// A shop: it sends orders and hears what becomes of them.
pub struct Client {
    sending: Channel,
    hearing: Channel,
    answers: ReadyChunks<Consumer>,
    confirms: VecDeque<PublisherConfirm>,
    properties: BasicProperties,
    run: u32,
    reserved: u64,
    // Closed when dropped, the last of all.
    _connections: [Connection; 2],
}

impl Client {
    /// Connects twice: a connection that sends at full rate may be throttled by the broker, and answers must not wait
    /// for that.
    ///
    /// # Errors
    /// When the broker is away or refuses.
    pub async fn open(amqp_url: &str) -> Result<Self> {
        let connections = [connect(amqp_url, "load: orders").await?, connect(amqp_url, "load: answers").await?];
        let sending = connections[0].create_channel().await?;
        sending.confirm_select(ConfirmSelectOptions::default()).await?;
        let hearing = connections[1].create_channel().await?;
        hearing.basic_qos(4 * CHUNK as u16, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let answers = hearing.basic_consume(queues::STOCK_OUTCOMES.into(), "load".into(), options, arguments).await?;
        let properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
        let (answers, confirms) = (answers.ready_chunks(CHUNK), VecDeque::new());
        Ok(Self { sending, hearing, answers, confirms, properties, run: 0, reserved: 0, _connections: connections })
    }

    /// Begins to send orders that no earlier run has sent.
    ///
    /// # Errors
    /// When the mix makes no sense.
    pub fn begin(&mut self, mix: Mix) -> Result<Run<'_>> {
        self.run += 1;
        Run::new(self, mix)
    }

    /// Sends a load, and waits until every order is answered.
    ///
    /// # Errors
    /// When an order is lost, is told two things, or the broker refuses one.
    pub async fn measure(&mut self, load: &Load, watch: &Watch) -> Result<Measured> {
        let mut run = self.begin(load.mix)?;
        run.keep(load.pace, load.warm_up).await?;
        let before = watch.look()?;
        let stretch = run.keep(load.pace, load.length).await?;
        let used = before.until(&watch.look()?);
        let told = run.finish().await?;
        Ok(Measured {
            per_second: stretch.per_second(),
            answered: stretch.latency.len(),
            latency: stretch.latency,
            reserved: told.reserved,
            rejected: told.rejected,
            used,
        })
    }

    /// How many orders were told that they have their stock, in all runs.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn count(&mut self, reserved: u64) {
        self.reserved += reserved;
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    pub(super) async fn publish(&mut self, routing_key: &str, body: &[u8]) -> Result<()> {
        let (exchange, key) = (orders::EXCHANGE.into(), routing_key.into());
        let (options, properties) = (BasicPublishOptions::default(), self.properties.clone());
        self.confirms.push_back(self.sending.basic_publish(exchange, key, options, body, properties).await?);
        Ok(())
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.confirms.len()
    }

    pub(super) fn is_throttled(&self) -> bool {
        self.confirms.len() >= UNCONFIRMED_MAX
    }

    /// Waits for the confirm that is owed longest.
    pub(super) async fn confirmed(&mut self) -> Result<()> {
        if let Some(confirm) = self.confirms.pop_front() {
            ensure!(confirm.await?.is_ack(), "the broker refuses an order");
        }
        Ok(())
    }

    /// Takes the confirms that are there.
    pub(super) fn check_confirms(&mut self) -> Result<()> {
        while let Some(confirm) = self.confirms.front_mut() {
            let Some(confirmed) = confirm.now_or_never() else { break };
            ensure!(confirmed?.is_ack(), "the broker refuses an order");
            self.confirms.pop_front();
        }
        Ok(())
    }

    /// The numbers of this run's orders that are answered, each with whether it has its stock, as soon as there
    /// are any; nothing if there are none until a moment.
    pub(super) async fn answers(&mut self, until: Instant) -> Result<Option<Vec<(usize, bool)>>> {
        let Ok(chunk) = tokio::time::timeout_at(until.into(), self.answers.next()).await else { return Ok(None) };
        let chunk = chunk.context("the broker ended the consumer")?;
        let mut answers = Vec::with_capacity(chunk.len());
        let mut last = None;
        for answer in chunk {
            let answer = answer?;
            last = Some(answer.delivery_tag);
            let (run, number) = order_of(&answer.data).context("an answer that names no order")?;
            if run == self.run {
                answers.push((number, answer.routing_key.as_str() == RESERVED));
            }
        }
        if let Some(last) = last {
            self.hearing.basic_ack(last, BasicAckOptions { multiple: true }).await?;
        }
        Ok(Some(answers))
    }

    pub(super) async fn waiting(&self) -> Result<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.hearing.queue_declare(queues::ORDER_CREATED.into(), passive, FieldTable::default()).await?;
        Ok(queue.message_count())
    }
}
