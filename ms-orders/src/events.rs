//! How inventory's answers and its products arrive: the two queues of this service.

use ::events::inventory::{self, ProductChanged, ProductDeleted, ProductEvent};
use ::events::inventory::{StockEvent, StockRejected, StockReleased, StockReserved};
use ::events::{Event, orders, queues};
use lapin::Connection;
use lapin::message::Delivery;
use lapin::types::ShortString;
use messaging::consumer::{Handler, Verdict, consume};
use messaging::outbox::Relay;
use messaging::session::{Broker, Work};
use messaging::topology::{self, WorkQueue};
use messaging::{Fault, Outgoing, trace_of};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::APP;
use crate::catalogue::{self, Change};
use crate::config::{Shop, Waits};
use crate::order::{self, News, Outcome, What};
use crate::status::Status;

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
    pub pool: PgPool,
    /// Publishes what no delivery causes.
    pub relay: Relay,
    /// How orders are taken.
    pub shop: Shop,
    /// Cancelled once the queues are there: from then on no change of a product is missed.
    pub listening: CancellationToken,
    /// When to stop.
    pub shutdown: CancellationToken,
}

impl Work for Worker {
    async fn session(&self, connection: &Connection) -> anyhow::Result<()> {
        topology::declare(connection, &[orders::EXCHANGE], QUEUES).await?;
        self.listening.cancel();
        self.broker.ready(connection);
        let Self { pool, relay, shop, shutdown, .. } = self;
        let outcomes = Outcomes { pool: pool.clone(), relay: relay.clone(), waits: shop.waits() };
        let products = Products { pool: pool.clone() };
        let consumed = CancellationToken::new();
        let consuming = async {
            tokio::try_join!(
                consume(connection, APP, queues::STOCK_OUTCOMES, shop.limits(), &outcomes, shutdown),
                consume(connection, APP, queues::PRODUCT_CHANGES, shop.limits(), &products, shutdown),
            )?;
            // The relay looks for the last time once no delivery writes to its outbox any more.
            consumed.cancel();
            Ok(())
        };
        tokio::try_join!(consuming, relay.run(connection, APP, &consumed))?;
        Ok(())
    }
}

/// Inventory's answers: each brings its order on.
#[derive(Debug)]
pub struct Outcomes {
    /// The database.
    pub pool: PgPool,
    /// Told when an order's end is to be published.
    pub relay: Relay,
    /// How long orders wait for what comes next.
    pub waits: Waits,
}

impl Handler for Outcomes {
    async fn handle(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<News, String>> = batch.iter().map(news).collect();
        let news: Vec<News> = parsed.iter().flatten().cloned().collect();
        let mut tx = self.pool.begin().await?;
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
    pub pool: PgPool,
}

impl Handler for Products {
    async fn handle(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Fault> {
        let parsed: Vec<Result<Change, String>> = batch.iter().map(|delivery| change(&delivery.data)).collect();
        let mut conn = self.pool.acquire().await?;
        catalogue::keep(&mut conn, parsed.iter().flatten().cloned()).await?;
        let verdict = |parsed: Result<Change, String>| match parsed {
            Ok(_) => Verdict::Done(Vec::new()),
            Err(reason) => Verdict::Dead(reason),
        };
        Ok(parsed.into_iter().map(verdict).collect())
    }
}

fn change(body: &[u8]) -> Result<Change, String> {
    let event = ProductEvent::parse(body).map_err(|error| error.to_string())?;
    Change::try_from(event).map_err(|error| error.to_string())
}
