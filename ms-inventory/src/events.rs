//! How orders arrive and answers leave: the two queues of this service.

use std::time::Duration;

use ::events::inventory::{self, ReleaseCause, StockRejected, StockReserved};
use ::events::orders::{self, OrderCancelled, OrderCreated, OrderEvent};
use ::events::{Event, OrderId, queues};
use lapin::Connection;
use lapin::message::Delivery;
use messaging::consumer::{Handler, Verdict, consume};
use messaging::outbox::Relay;
use messaging::session::{Broker, Work};
use messaging::topology::{self, WorkQueue};
use messaging::{Fault, Outgoing, Trace, trace_of};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::APP;
use crate::config::Engine;
use crate::hold::{self, Answer, Order, Reserved, Reserver};

/// What this service works through.
pub const QUEUES: &[WorkQueue] = &[
    WorkQueue { name: queues::ORDER_CREATED, exchange: orders::EXCHANGE, routing_keys: &[OrderCreated::ROUTING_KEY] },
    WorkQueue { name: queues::ORDER_SETTLED, exchange: orders::EXCHANGE, routing_keys: &[OrderCancelled::ROUTING_KEY] },
];

/// What this service does with a connection to the broker.
#[derive(Debug)]
pub struct Worker {
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub pool: PgPool,
    /// Publishes what no delivery causes.
    pub relay: Relay,
    /// How the engine works.
    pub engine: Engine,
    /// When to stop.
    pub shutdown: CancellationToken,
}

impl Work for Worker {
    async fn session(&self, connection: &Connection) -> anyhow::Result<()> {
        topology::declare(connection, &[inventory::EXCHANGE], QUEUES).await?;
        self.broker.ready(connection);
        let Self { pool, relay, engine, shutdown, .. } = self;
        let created =
            Created { reserver: Reserver::new(pool.clone()), relay: relay.clone(), hold_ttl: engine.hold_ttl() };
        let settled = Settled { pool: pool.clone() };
        let consumed = CancellationToken::new();
        let consuming = async {
            tokio::try_join!(
                consume(connection, APP, queues::ORDER_CREATED, engine.limits(), &created, shutdown),
                consume(connection, APP, queues::ORDER_SETTLED, engine.limits(), &settled, shutdown),
            )?;
            // The relay looks for the last time once nothing more is written to its outbox.
            consumed.cancel();
            Ok(())
        };
        tokio::try_join!(consuming, relay.run(connection, APP, &consumed))?;
        Ok(())
    }
}

/// New orders: each gets its stock or a rejection.
#[derive(Debug)]
pub struct Created {
    /// Gets them their stock.
    pub reserver: Reserver,
    /// Told when holds expired on the way.
    pub relay: Relay,
    /// How long stock is held.
    pub hold_ttl: Duration,
}

impl Handler for Created {
    async fn handle(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<Order, String>> = batch.iter().map(|delivery| order(&delivery.data)).collect();
        let orders: Vec<Order> = parsed.iter().flatten().cloned().collect();
        let Reserved { answers, expired } = self.reserver.reserve(&orders, self.hold_ttl).await?;
        if expired > 0 {
            self.relay.wake();
        }
        let mut answered = orders.iter().zip(answers);
        batch
            .iter()
            .zip(&parsed)
            .map(|(delivery, parsed)| match parsed {
                Err(reason) => Ok(Verdict::Dead(reason.clone())),
                Ok(_) => answered.next().map_or_else(
                    || Err(Fault::Sticky(anyhow::anyhow!("an order without an answer"))),
                    |(order, answer)| verdict(&order.id, answer, trace_of(delivery)),
                ),
            })
            .collect()
    }
}

fn order(body: &[u8]) -> Result<Order, String> {
    match OrderEvent::parse(body).map_err(|error| error.to_string())? {
        OrderEvent::Created(event) => Ok(event.into()),
        OrderEvent::Cancelled(_) => Err(format!("{} does not belong into this queue", OrderCancelled::NAME)),
    }
}

fn verdict(order_id: &OrderId, answer: Answer, trace: Trace) -> Result<Verdict, Fault> {
    let order_id = order_id.clone();
    let message = match answer {
        Answer::Reserved { lines, expires_at } => {
            let items = lines.items().to_vec();
            Outgoing::of(&StockReserved { order_id, items, expires_at: Some(expires_at) }, trace)
        }
        Answer::Rejected { reason, shortages } => Outgoing::of(&StockRejected { order_id, reason, shortages }, trace),
        Answer::Conflict => {
            return Ok(Verdict::Dead(format!("conflict: order {order_id} asked for other items before")));
        }
    };
    Ok(Verdict::Done(vec![message?]))
}

/// How orders ended.
#[derive(Debug)]
pub struct Settled {
    /// The database.
    pub pool: PgPool,
}

impl Handler for Settled {
    async fn handle(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<OrderId, String>> = batch.iter().map(|delivery| cancelled(&delivery.data)).collect();
        let orders: Vec<OrderId> = parsed.iter().flatten().cloned().collect();
        let released = hold::cancel(&self.pool, &orders).await?;
        batch
            .iter()
            .zip(parsed)
            .map(|(delivery, parsed)| match parsed.map(|order_id| released.get(&order_id)) {
                Err(reason) => Ok(Verdict::Dead(reason)),
                Ok(None) => Ok(Verdict::Done(Vec::new())),
                Ok(Some(hold)) => {
                    let event = hold.event(ReleaseCause::Cancelled);
                    Ok(Verdict::Done(vec![Outgoing::of(&event, trace_of(delivery))?]))
                }
            })
            .collect()
    }
}

fn cancelled(body: &[u8]) -> Result<OrderId, String> {
    match OrderEvent::parse(body).map_err(|error| error.to_string())? {
        OrderEvent::Cancelled(event) => Ok(event.order_id),
        OrderEvent::Created(_) => Err(format!("{} does not belong into this queue", OrderCreated::NAME)),
    }
}
