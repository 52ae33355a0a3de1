mod store;

use std::collections::BTreeMap;

use ::events::inventory::{ReleaseCause, StockEvent, StockRejected, StockReleased, StockReserved};
use ::events::orders::{OrderCancelled, OrderCompleted, OrderRefunded};
use ::events::{Event, Item, OrderId};
use chrono::{DateTime, Utc};
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use self::store::{lock, update};
use super::{Shortage, items};
use crate::config::Waits;
use crate::payment;
use crate::status::{Happening, Next, Status, next};

/// Something that happened to an order.
#[derive(Debug, Clone)]
pub struct News {
    /// The order.
    pub order_id: OrderId,
    /// What happened to it.
    pub what: What,
    /// The id of the message that told it, where one did and had one.
    pub message_id: Option<String>,
    /// The trace it belongs to.
    pub trace: Trace,
}

/// What happened to an order.
#[derive(Debug, Clone)]
pub enum What {
    /// Inventory said this.
    Stock(StockEvent),
    /// Its payment was made.
    Paid,
    /// Its payment was declined.
    Declined,
    /// Somebody cancels it.
    Cancelled {
        /// Who, by their account.
        by: Uuid,
        /// Why, for people.
        reason: String,
    },
    /// Somebody has its payment given back.
    Refunded {
        /// Who, by their account.
        by: Uuid,
        /// Why, for people.
        reason: String,
        /// Whether the goods come back.
        restock: bool,
    },
    /// Inventory never answered.
    Unanswered,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The order is not ours.
    Unknown,
    /// The order took this status.
    Became(Status),
    /// The order stays what it is.
    Unchanged(Status),
    /// The order stays cancelled, and inventory is to be told once more.
    GiveBack(OrderCancelled),
}

/// Brings orders to where news lead, in the order of their arrival, with their timelines, their payments and the events
/// that tell of it. A constant number of statements, however many. Tells what came of each.
///
/// # Errors
/// Those of the database.
pub async fn advance(conn: &mut PgConnection, news: &[News], waits: Waits) -> Result<Vec<Outcome>, Fault> {
    let mut orders = lock(conn, news).await?;
    let mut steps = Vec::new();
    let mut outcomes = Vec::with_capacity(news.len());
    for news in news {
        let Some(order) = orders.get_mut(news.order_id.as_str()) else {
            outcomes.push(Outcome::Unknown);
            continue;
        };
        outcomes.push(match order.hear(&news.what) {
            Next::Become(status) => {
                steps.push(Step { news, status, message: None });
                Outcome::Became(status)
            }
            Next::GiveBack => Outcome::GiveBack(OrderCancelled {
                order_id: news.order_id.clone(),
                reason: order.reason.clone().unwrap_or_default(),
            }),
            Next::Answered | Next::Nothing => Outcome::Unchanged(order.status),
        });
    }
    orders.retain(|_, order| order.changed);
    if orders.is_empty() {
        return Ok(outcomes);
    }
    let messages = tell(conn, &orders, &mut steps).await?;
    update(conn, &orders, &steps, waits).await?;
    outbox::enqueue(conn, &messages).await?;
    Ok(outcomes)
}

/// Counts the statuses orders took, once that is committed.
pub fn count_settled(outcomes: &[Outcome]) {
    for outcome in outcomes {
        if let Outcome::Became(status) = outcome {
            metrics::counter!("orders_settled_total", "status" => label(*status)).increment(1);
        }
    }
}

/// An order while news are applied to it.
struct Advancing {
    was: Status,
    status: Status,
    changed: bool,
    /// Whether inventory owes it no word any more.
    answered: bool,
    /// Whether inventory owed it no word when it was locked.
    was_answered: bool,
    stock_released: bool,
    restock: bool,
    declined: bool,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    shortages: Option<Json<Vec<Shortage>>>,
    written_off: Option<Json<Vec<Item>>>,
}

impl Advancing {
    fn hear(&mut self, what: &What) -> Next {
        if let What::Stock(StockEvent::Released(_)) = what
            && !self.stock_released
        {
            self.stock_released = true;
            self.changed = true;
        }
        if let What::Stock(StockEvent::Released(StockReleased { written_off, .. })) = what
            && !written_off.is_empty()
        {
            self.written_off = Some(Json(written_off.clone()));
            self.changed = true;
        }
        let next = match next(self.status, what.into()) {
            // It waits for the goods to come back, not for them to be sold.
            Next::Answered if self.restock && matches!(what, What::Stock(StockEvent::Reserved(_))) => Next::Nothing,
            next => next,
        };
        match next {
            Next::Become(status) => {
                self.status = status;
                self.changed = true;
                self.answered = status == Status::Cancelled;
                self.remember(what);
            }
            Next::Answered => {
                self.answered = true;
                self.changed = true;
            }
            // It was held and released before we heard that it was held.
            Next::GiveBack if self.stock_released => return Next::Nothing,
            Next::GiveBack | Next::Nothing => (),
        }
        next
    }

    fn remember(&mut self, what: &What) {
        match what {
            What::Stock(StockEvent::Reserved(event)) => self.expires_at = event.expires_at,
            What::Stock(StockEvent::Rejected(event)) => {
                self.reason = Some(event.reason.clone());
                self.shortages = Some(Json(event.shortages.clone()));
                self.answered = true;
            }
            What::Stock(StockEvent::Released(event)) => {
                self.reason = Some(why(event.cause).to_owned());
                self.answered = true;
            }
            What::Paid => (),
            What::Declined => {
                self.declined = true;
                self.reason = Some("The payment was declined".to_owned());
            }
            What::Cancelled { reason, .. } => self.reason = Some(reason.clone()),
            What::Refunded { reason, restock, .. } => {
                self.reason = Some(reason.clone());
                self.restock = *restock;
                // Goods that stay away must have been sold before.
                self.answered = !restock && self.was_answered;
            }
            What::Unanswered => self.reason = Some("Inventory did not answer in time".to_owned()),
        }
    }

    /// What becomes of the payment when the order becomes what it is.
    fn payment(&self) -> Option<payment::Turn> {
        match (self.was, self.status) {
            (was, status) if was == status => None,
            (_, Status::Confirmed) => Some(payment::Turn::Due),
            (_, Status::Completed) => Some(payment::Turn::Paid),
            (_, Status::Refunded) => Some(payment::Turn::Return),
            (Status::Confirmed, Status::Cancelled) if self.declined => Some(payment::Turn::Declined),
            (Status::Confirmed, Status::Cancelled) => Some(payment::Turn::Cancel),
            _ => None,
        }
    }
}

impl From<&What> for Happening {
    fn from(what: &What) -> Self {
        match what {
            What::Stock(event) => event.into(),
            What::Paid => Self::Paid,
            What::Declined => Self::Declined,
            What::Cancelled { .. } => Self::Cancelled,
            What::Refunded { .. } => Self::Refunded,
            What::Unanswered => Self::Unanswered,
        }
    }
}

/// A status an order takes, and by what.
struct Step<'a> {
    news: &'a News,
    status: Status,
    /// The id of the message that tells of it.
    message: Option<String>,
}

impl Step<'_> {
    /// By what, as the timeline says it.
    fn cause(&self) -> &'static str {
        match &self.news.what {
            What::Stock(StockEvent::Reserved(_)) => StockReserved::NAME,
            What::Stock(StockEvent::Rejected(_)) => StockRejected::NAME,
            What::Stock(StockEvent::Released(StockReleased { cause: ReleaseCause::Expired, .. })) => "expired",
            What::Stock(StockEvent::Released(_)) => StockReleased::NAME,
            What::Paid => "paid",
            What::Declined => "declined",
            What::Cancelled { .. } => "cancelOrder",
            What::Refunded { .. } => "refundOrder",
            What::Unanswered => "unanswered",
        }
    }

    /// Who did it.
    fn actor_id(&self) -> Option<Uuid> {
        match self.news.what {
            What::Cancelled { by, .. } | What::Refunded { by, .. } => Some(by),
            _ => None,
        }
    }

    /// The message that told of it, or else the one that tells of it.
    fn message_id(&self) -> Option<&str> {
        self.news.message_id.as_deref().or(self.message.as_deref())
    }
}

fn why(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::Cancelled => "The reservation was cancelled",
        ReleaseCause::Expired => "The reservation expired",
        ReleaseCause::Refunded => "The order was refunded",
    }
}

fn label(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Confirmed => "confirmed",
        Status::Completed => "completed",
        Status::Refunded => "refunded",
        Status::Cancelled => "cancelled",
    }
}

/// The events that tell of steps others have to know of; each step learns the id of its own.
async fn tell(
    conn: &mut PgConnection,
    orders: &BTreeMap<String, Advancing>,
    steps: &mut [Step<'_>],
) -> Result<Vec<Outgoing>, Fault> {
    let completed = steps.iter().filter(|step| step.status == Status::Completed);
    let ids: Vec<String> = completed.map(|step| step.news.order_id.as_str().to_owned()).collect();
    let items = items(conn, &ids).await?;
    let mut messages = Vec::new();
    for step in steps {
        let News { order_id, what, trace, .. } = step.news;
        let reason = || orders.get(order_id.as_str()).and_then(|order| order.reason.clone()).unwrap_or_default();
        let message = match (step.status, what) {
            (Status::Completed, _) => {
                let items = items.get(order_id.as_str()).cloned().unwrap_or_default();
                Outgoing::of(&OrderCompleted { order_id: order_id.clone(), items }, *trace)?
            }
            (Status::Refunded, what) => {
                let restock = matches!(what, What::Refunded { restock: true, .. });
                Outgoing::of(&OrderRefunded { order_id: order_id.clone(), reason: reason(), restock }, *trace)?
            }
            // Inventory knows what it said itself.
            (Status::Cancelled, what) if !matches!(what, What::Stock(_)) => {
                Outgoing::of(&OrderCancelled { order_id: order_id.clone(), reason: reason() }, *trace)?
            }
            _ => continue,
        };
        step.message = Some(message.message_id.to_string());
        messages.push(message);
    }
    Ok(messages)
}
