//! How orders arrive and answers leave: the two queues of this service.

use std::time::Duration;

use ::events::inventory::{self, ReleaseCause, StockRejected, StockReleased, StockReserved};
use ::events::orders::{self, OrderCancelled, OrderCompleted, OrderCreated, OrderEvent, OrderRefunded};
use ::events::{Event, OrderId, queues};
use database::{LockWait, Pool};
use futures::FutureExt;
use lapin::Connection;
use lapin::message::Delivery;
use messaging::consumer::{Handler, Limits, Verdict, consume};
use messaging::outbox::Relay;
use messaging::session::{Broker, Work, both};
use messaging::topology::{self, WorkQueue};
use messaging::{Fault, Outgoing, Progress, Trace, trace_of};
use tokio_util::sync::CancellationToken;

use crate::APP;
use crate::config::Engine;
use crate::hold::{self, Answer, Order, Reserved, Reserver};
use crate::settlement::{self, Ending};
use crate::stock::Request;

/// What this service publishes to.
const EXCHANGES: &[&str] = &[inventory::EXCHANGE];

/// What this service works through.
pub const QUEUES: &[WorkQueue] = &[
    WorkQueue { name: queues::ORDER_CREATED, exchange: orders::EXCHANGE, routing_keys: &[OrderCreated::ROUTING_KEY] },
    WorkQueue {
        name: queues::ORDER_SETTLED,
        exchange: orders::EXCHANGE,
        routing_keys: &[OrderCompleted::ROUTING_KEY, OrderCancelled::ROUTING_KEY, OrderRefunded::ROUTING_KEY],
    },
];

/// What this service does with a connection to the broker.
#[derive(Debug)]
pub struct Worker {
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub pool: Pool,
    /// Publishes what no delivery causes.
    pub relay: Relay,
    /// How the engine works.
    pub engine: Engine,
    /// How much a consumer takes at once, and for how long.
    pub limits: Limits,
    /// Told what is in hand.
    pub progress: Progress,
    /// When to stop.
    pub shutdown: CancellationToken,
}

impl Work for Worker {
    async fn session(&self, connection: &Connection) -> anyhow::Result<()> {
        topology::declare(connection, EXCHANGES, QUEUES).await?;
        self.broker.ready(connection);
        let Self { pool, relay, engine, limits, progress, shutdown, .. } = self;
        let created =
            Created { reserver: Reserver::new(pool.clone()), relay: relay.clone(), hold_ttl: engine.hold_ttl() };
        let settled = Settled { pool: pool.clone(), relay: relay.clone() };
        let (ending, consumed) = (shutdown.child_token(), CancellationToken::new());
        let consuming = async {
            let ended = both(
                &ending,
                consume(connection, APP, queues::ORDER_CREATED, *limits, &created, progress, &ending).boxed(),
                consume(connection, APP, queues::ORDER_SETTLED, *limits, &settled, progress, &ending).boxed(),
            );
            let ended = ended.await;
            // The relay looks for the last time once nothing more is written to its outbox.
            consumed.cancel();
            ended
        };
        let publishing = both(
            &ending,
            relay.run(connection, APP, progress, &consumed).boxed(),
            topology::keep(connection, EXCHANGES, QUEUES, &ending).boxed(),
        );
        both(&ending, consuming.boxed(), publishing.boxed()).await
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
    async fn handle(&self, batch: &[Delivery], locks: LockWait) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<Order, String>> = batch.iter().map(|delivery| order(&delivery.data)).collect();
        let orders: Vec<Order> = parsed.iter().flatten().cloned().collect();
        let Reserved { answers, expired } = self.reserver.reserve(locks, &orders, self.hold_ttl).await?;
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

    async fn ready(&self) -> Result<(), Fault> {
        Ok(self.reserver.pool().check_writable().await?)
    }
}

fn order(body: &[u8]) -> Result<Order, String> {
    match OrderEvent::parse(body).map_err(|error| error.to_string())? {
        OrderEvent::Created(event) => Ok(event.into()),
        other => Err(misplaced(&other)),
    }
}

fn misplaced(event: &OrderEvent) -> String {
    format!("{} does not belong into this queue", event.name())
}

fn verdict(order_id: &OrderId, answer: Answer, trace: Trace) -> Result<Verdict, Fault> {
    let order_id = order_id.clone();
    let message = match answer {
        Answer::Reserved { lines, expires_at } => {
            let items = lines.items().to_vec();
            Outgoing::of(&StockReserved { order_id, items, expires_at }, trace)
        }
        Answer::Released { lines, cause } => {
            let items = lines.items().to_vec();
            Outgoing::of(&StockReleased { order_id, items, cause, written_off: Vec::new() }, trace)
        }
        Answer::Rejected { reason, shortages } => Outgoing::of(&StockRejected { order_id, reason, shortages }, trace),
        Answer::Conflict => {
            return Ok(Verdict::Dead(format!("conflict: order {order_id} asked for other items before")));
        }
    };
    Ok(Verdict::Done(vec![message?]))
}

/// How orders ended: what was held for them is sold, released, or comes back.
#[derive(Debug)]
pub struct Settled {
    /// The database.
    pub pool: Pool,
    /// Told when holds expired on the way.
    pub relay: Relay,
}

impl Handler for Settled {
    async fn handle(&self, batch: &[Delivery], locks: LockWait) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<(OrderId, Ending), String>> =
            batch.iter().map(|delivery| ending(&delivery.data)).collect();
        let endings: Vec<(OrderId, Ending)> = parsed.iter().flatten().cloned().collect();
        let hold::Settled { answers, expired } = hold::settle(&self.pool, locks, &endings).await?;
        if expired > 0 {
            self.relay.wake();
        }
        let mut answers = answers.into_iter();
        batch
            .iter()
            .zip(parsed)
            .map(|(delivery, parsed)| match parsed {
                Err(reason) => Ok(Verdict::Dead(reason)),
                Ok((order_id, _)) => answers.next().map_or_else(
                    || Err(Fault::Sticky(anyhow::anyhow!("an ending without an answer"))),
                    |answer| told(order_id, answer, trace_of(delivery)),
                ),
            })
            .collect()
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(self.pool.check_writable().await?)
    }
}

fn ending(body: &[u8]) -> Result<(OrderId, Ending), String> {
    match OrderEvent::parse(body).map_err(|error| error.to_string())? {
        OrderEvent::Completed(OrderCompleted { order_id, items }) => {
            let request = (!items.is_empty()).then(|| Request::of(&items));
            Ok((order_id, Ending::Completed(request)))
        }
        OrderEvent::Cancelled(event) => Ok((event.order_id, Ending::Cancelled)),
        OrderEvent::Refunded(event) => Ok((event.order_id, Ending::Refunded { restock: event.restock })),
        other @ OrderEvent::Created(_) => Err(misplaced(&other)),
    }
}

fn told(order_id: OrderId, answer: settlement::Answer, trace: Trace) -> Result<Verdict, Fault> {
    use settlement::Answer;
    let message = match answer {
        Answer::Sold(lines) => {
            let items = lines.items().to_vec();
            Outgoing::of(&StockReserved { order_id, items, expires_at: None }, trace)
        }
        Answer::Released(lines, cause) => {
            let items = lines.items().to_vec();
            Outgoing::of(&StockReleased { order_id, items, cause, written_off: Vec::new() }, trace)
        }
        Answer::Returned { lines, written_off } => {
            let (items, cause) = (lines.items().to_vec(), ReleaseCause::Refunded);
            let written_off = items.iter().filter(|item| written_off.contains(&item.product_id)).copied().collect();
            Outgoing::of(&StockReleased { order_id, items, cause, written_off }, trace)
        }
        Answer::Rejected { reason, shortages } => Outgoing::of(&StockRejected { order_id, reason, shortages }, trace),
        Answer::Nothing => return Ok(Verdict::Done(Vec::new())),
        Answer::Absurd(reason) => return Ok(Verdict::Dead(reason)),
    };
    Ok(Verdict::Done(vec![message?]))
}
