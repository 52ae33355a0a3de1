//! How inventory's answers and its products arrive: the two queues of this service.

use ::events::inventory::{self, ProductChanged, ProductDeleted, ProductEvent};
use ::events::inventory::{StockEvent, StockRejected, StockReleased, StockReserved};
use ::events::{Event, orders, queues};
use database::{LockWait, Pool};
use futures::FutureExt;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::types::ShortString;
use messaging::consumer::{Handler, Limits, Verdict, consume};
use messaging::outbox::Relay;
use messaging::session::{Broker, Work, both};
use messaging::topology::{self, WorkQueue};
use messaging::{Fault, Outgoing, Progress, trace_of};
use tokio_util::sync::CancellationToken;

use crate::APP;
use crate::catalogue::{self, Change};
use crate::config::{Shop, Waits};
use crate::order::{self, News, Outcome, What};
use crate::status::Status;

/// What this service publishes to.
const EXCHANGES: &[&str] = &[orders::EXCHANGE];

/// What this service works through.
pub const QUEUES: &[WorkQueue] = &[
    WorkQueue {
        name: queues::STOCK_OUTCOMES,
        exchange: inventory::EXCHANGE,
        routing_keys: &[StockReserved::ROUTING_KEY, StockRejected::ROUTING_KEY, StockReleased::ROUTING_KEY],
    },
    WorkQueue {
        name: queues::PRODUCT_CHANGES,
        exchange: inventory::EXCHANGE,
        routing_keys: &[ProductChanged::ROUTING_KEY, ProductDeleted::ROUTING_KEY],
    },
];

/// The longest reason that is kept of a rejection, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// What this service does with a connection to the broker.
#[derive(Debug)]
pub struct Worker {
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub pool: Pool,
    /// Publishes what no delivery causes.
    pub relay: Relay,
    /// How orders are taken.
    pub shop: Shop,
    /// How much a consumer takes at once, and for how long.
    pub limits: Limits,
    /// Told what is in hand.
    pub progress: Progress,
    /// Cancelled once the queues are there: from then on no change of a product is missed.
    pub listening: CancellationToken,
    /// When to stop.
    pub shutdown: CancellationToken,
}

impl Work for Worker {
    async fn session(&self, connection: &Connection) -> anyhow::Result<()> {
        topology::declare(connection, EXCHANGES, QUEUES).await?;
        self.listening.cancel();
        self.broker.ready(connection);
        let Self { pool, relay, shop, limits, progress, shutdown, .. } = self;
        let outcomes = Outcomes { pool: pool.clone(), relay: relay.clone(), waits: shop.waits() };
        let products = Products { pool: pool.clone() };
        let (ending, consumed) = (shutdown.child_token(), CancellationToken::new());
        let consuming = async {
            let ended = both(
                &ending,
                consume(connection, APP, queues::STOCK_OUTCOMES, *limits, &outcomes, progress, &ending).boxed(),
                consume(connection, APP, queues::PRODUCT_CHANGES, *limits, &products, progress, &ending).boxed(),
            );
            let ended = ended.await;
            // The relay looks for the last time once no delivery writes to its outbox any more.
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

/// Inventory's answers: each brings its order on.
#[derive(Debug)]
pub struct Outcomes {
    /// The database.
    pub pool: Pool,
    /// Told when an order's end is to be published.
    pub relay: Relay,
    /// How long orders wait for what comes next.
    pub waits: Waits,
}

impl Handler for Outcomes {
    async fn handle(&self, batch: &[Delivery], locks: LockWait) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<News, String>> = batch.iter().map(news).collect();
        let news: Vec<News> = parsed.iter().flatten().cloned().collect();
        let mut tx = self.pool.begin_with(locks).await?;
        let outcomes = order::advance(&mut tx, &news, self.waits).await?;
        tx.commit().await?;
        order::count_settled(&outcomes);
        if outcomes.contains(&Outcome::Became(Status::Refunded)) {
            self.relay.wake();
        }
        let mut outcomes = outcomes.into_iter();
        parsed
            .into_iter()
            .map(|parsed| match parsed {
                Err(reason) => Ok(Verdict::Dead(reason)),
                Ok(news) => Ok(Verdict::Done(match outcomes.next() {
                    Some(Outcome::GiveBack(event)) => vec![Outgoing::of(&event, news.trace)?],
                    _ => Vec::new(),
                })),
            })
            .collect()
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(self.pool.check_writable().await?)
    }
}

fn news(delivery: &Delivery) -> Result<News, String> {
    let mut event = StockEvent::parse(&delivery.data).map_err(|error| error.to_string())?;
    if let StockEvent::Rejected(rejected) = &mut event {
        if rejected.reason.contains('\0') {
            return Err("reason contains NUL".to_owned());
        }
        rejected.reason = rejected.reason.chars().take(MAX_REASON_CHARS).collect();
    }
    let message_id = delivery.properties.message_id().as_ref().map(ShortString::as_str);
    Ok(News {
        order_id: event.order_id().clone(),
        what: What::Stock(event),
        message_id: message_id.filter(|id| !id.contains('\0')).map(str::to_owned),
        trace: trace_of(delivery),
    })
}

/// Changes of products: the newest is what is sold.
#[derive(Debug)]
pub struct Products {
    /// The database.
    pub pool: Pool,
}

impl Handler for Products {
    async fn handle(&self, batch: &[Delivery], locks: LockWait) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<Change, String>> = batch.iter().map(|delivery| change(&delivery.data)).collect();
        let mut tx = self.pool.begin_with(locks).await?;
        catalogue::keep(&mut tx, parsed.iter().flatten().cloned()).await?;
        tx.commit().await?;
        let verdict = |parsed: Result<Change, String>| match parsed {
            Ok(_) => Verdict::Done(Vec::new()),
            Err(reason) => Verdict::Dead(reason),
        };
        Ok(parsed.into_iter().map(verdict).collect())
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(self.pool.check_writable().await?)
    }
}

fn change(body: &[u8]) -> Result<Change, String> {
    let event = ProductEvent::parse(body).map_err(|error| error.to_string())?;
    Change::try_from(event).map_err(|error| error.to_string())
}
