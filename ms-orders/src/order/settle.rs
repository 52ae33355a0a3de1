use std::collections::BTreeMap;

use ::events::Event;
use ::events::inventory::{ReleaseCause, StockEvent, StockRejected, StockReleased, StockReserved};
use ::events::orders::OrderCancelled;
use chrono::{DateTime, Utc};
use messaging::{Fault, Trace};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::Shortage;
use crate::status::{Next, Outcome, Status, next};

/// What inventory said of an order, and by which message.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it said.
    pub event: StockEvent,
    /// The message's id, where it has one.
    pub message_id: Option<String>,
    /// The trace it belongs to.
    pub trace: Trace,
}

/// Brings orders to where inventory's answers lead, in the order of their arrival, and returns for each answer the
/// event it calls for, if any. A constant number of statements, however many.
///
/// Answers to orders that are not ours, repeated answers and late ones change nothing.
///
/// # Errors
/// Those of the database.
pub async fn settle(conn: &mut PgConnection, answers: &[Answer]) -> Result<Vec<Option<OrderCancelled>>, Fault> {
    let mut orders = lock(conn, answers).await?;
    let mut steps = Vec::new();
    let mut events = Vec::with_capacity(answers.len());
    for answer in answers {
        let Some(order) = orders.get_mut(answer.event.order_id().as_str()) else {
            events.push(None);
            continue;
        };
        let next = order.hear(&answer.event);
        if let Next::Become(status) = next {
            steps.push((answer, status));
        }
        events.push((next == Next::GiveBack).then(|| OrderCancelled {
            order_id: answer.event.order_id().clone(),
            reason: order.reason.clone().unwrap_or_default(),
        }));
    }
    update(conn, &orders, &steps).await?;
    for (_, status) in steps {
        metrics::counter!("orders_settled_total", "status" => label(status)).increment(1);
    }
    Ok(events)
}

/// An order while answers are applied to it.
struct Settling {
    was: Status,
    status: Status,
    stock_released: bool,
    changed: bool,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    shortages: Option<Json<Vec<Shortage>>>,
}

impl Settling {
    fn hear(&mut self, event: &StockEvent) -> Next {
        if matches!(event, StockEvent::Released(_)) && !self.stock_released {
            self.stock_released = true;
            self.changed = true;
        }
        match next(self.status, Outcome::from(event)) {
            Next::Become(status) => {
                self.status = status;
                self.changed = true;
                self.remember(event);
                Next::Become(status)
            }
            // It was held and released before we heard that it was held.
            Next::GiveBack if self.stock_released => Next::Nothing,
            other => other,
        }
    }

    fn remember(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Reserved(event) => self.expires_at = event.expires_at,
            StockEvent::Rejected(event) => {
                self.reason = Some(event.reason.clone());
                self.shortages = Some(Json(event.shortages.clone()));
            }
            StockEvent::Released(event) => self.reason = Some(why(event.cause).to_owned()),
        }
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
        Status::Cancelled => "cancelled",
    }
}

/// Locks those of the orders that are ours, in the order of their ids.
async fn lock(conn: &mut PgConnection, answers: &[Answer]) -> sqlx::Result<BTreeMap<String, Settling>> {
    let ids: Vec<&str> = answers.iter().map(|answer| answer.event.order_id().as_str()).collect();
    let rows = sqlx::query!(
        r#"select id, status as "status: Status", stock_released, expires_at, reason,
                  shortages as "shortages: Json<Vec<Shortage>>"
           from orders
           where id = any($1)
           order by id
           for update"#,
        &ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let settling = rows.into_iter().map(|row| {
        let settling = Settling {
            was: row.status,
            status: row.status,
            stock_released: row.stock_released,
            changed: false,
            expires_at: row.expires_at,
            reason: row.reason,
            shortages: row.shortages,
        };
        (row.id, settling)
    });
    Ok(settling.collect())
}

/// Stores what became of the orders, and appends to their timelines.
async fn update(
    conn: &mut PgConnection,
    orders: &BTreeMap<String, Settling>,
    steps: &[(&Answer, Status)],
) -> Result<(), Fault> {
    let changed: Vec<_> = orders.iter().filter(|(_, order)| order.changed).collect();
    if changed.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($rows:ident, $get:expr) => {
            &$rows.iter().map($get).collect::<Vec<_>>()
        };
    }
    let updated = sqlx::query_scalar!(
        r#"with updated as (
               update orders
               set status = new.status,
                   stock_released = new.stock_released,
                   expires_at = new.expires_at,
                   reason = new.reason,
                   shortages = new.shortages,
                   updated_at = case when new.status = new.was then updated_at else now() end
               from unnest(
                   $1::text[], $2::order_status[], $3::order_status[], $4::bool[], $5::timestamptz[], $6::text[],
                   $7::jsonb[]
               ) as new (id, was, status, stock_released, expires_at, reason, shortages)
               where orders.id = new.id and orders.status = new.was
               returning orders.id
           ), step as (
               insert into order_steps (order_id, status, cause, message_id, trace_id)
               select * from unnest($8::text[], $9::order_status[], $10::text[], $11::text[], $12::text[])
           )
           select count(*) as "count!" from updated"#,
        column!(changed, |(id, _)| id.as_str()) as &[&str],
        column!(changed, |(_, order)| order.was) as &[Status],
        column!(changed, |(_, order)| order.status) as &[Status],
        column!(changed, |(_, order)| order.stock_released),
        column!(changed, |(_, order)| order.expires_at) as &[Option<DateTime<Utc>>],
        column!(changed, |(_, order)| order.reason.as_deref()) as &[Option<&str>],
        column!(changed, |(_, order)| order.shortages.as_ref()) as &[Option<&Json<Vec<Shortage>>>],
        column!(steps, |(answer, _)| answer.event.order_id().as_str()) as &[&str],
        column!(steps, |(_, status)| *status) as &[Status],
        column!(steps, |(answer, _)| name(&answer.event)) as &[&str],
        column!(steps, |(answer, _)| answer.message_id.as_deref()) as &[Option<&str>],
        column!(steps, |(answer, _)| answer.trace.to_string()),
    )
    .fetch_one(conn)
    .await?;
    if updated == changed.len() as i64 { Ok(()) } else { Err(Fault::Sticky(anyhow::anyhow!("a locked order changed"))) }
}

fn name(event: &StockEvent) -> &'static str {
    match event {
        StockEvent::Reserved(_) => StockReserved::NAME,
        StockEvent::Rejected(_) => StockRejected::NAME,
        StockEvent::Released(_) => StockReleased::NAME,
    }
}
