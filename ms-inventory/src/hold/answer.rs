use std::collections::HashMap;
use std::time::Duration;

use ::events::OrderId;
use ::events::inventory::Shortage;
use chrono::{DateTime, Utc};
use messaging::Fault;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::Order;
use crate::stock::{Decision, Lines};

/// What an order is told, now and for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of its lines are held.
    Reserved {
        /// What is held.
        lines: Lines,
        /// Until when.
        expires_at: DateTime<Utc>,
    },
    /// Nothing is held.
    Rejected {
        /// Why, for people.
        reason: String,
        /// Which products were short.
        shortages: Vec<Shortage>,
    },
    /// An order of this id asked for other items before; that one's answer stands.
    Conflict,
}

/// The stored answers of orders.
pub(super) type Answers = HashMap<OrderId, Stored>;

/// A stored answer, and what was asked.
pub(super) struct Stored {
    /// Not known of a cancellation that came before its order.
    lines: Option<Lines>,
    answer: Answer,
}

impl Stored {
    pub(super) fn answer_to(&self, order: &Order) -> Answer {
        match &self.lines {
            Some(lines) if *lines != order.request.lines => Answer::Conflict,
            _ => self.answer.clone(),
        }
    }
}

/// The answers these orders got before.
pub(super) async fn stored(conn: &mut PgConnection, orders: &[&Order]) -> Result<Answers, Fault> {
    let ids: Vec<&str> = orders.iter().map(|order| order.id.as_str()).collect();
    let rows = sqlx::query!(
        r#"select order_id, product_ids, quantities, expires_at, reason, shortages as "shortages: Json<Vec<Shortage>>"
           from holds
           where order_id = any($1)"#,
        &ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let mut answers = Answers::with_capacity(rows.len());
    for row in rows {
        let order_id = OrderId::try_from(row.order_id).map_err(|error| Fault::Sticky(error.into()))?;
        let lines = row.product_ids.zip(row.quantities).map(|(ids, quantities)| Lines::from_columns(&ids, &quantities));
        let answer = match (row.expires_at, &lines) {
            (Some(expires_at), Some(lines)) => Answer::Reserved { lines: lines.clone(), expires_at },
            _ => Answer::Rejected {
                reason: row.reason.unwrap_or_default(),
                shortages: row.shortages.map(|Json(shortages)| shortages).unwrap_or_default(),
            },
        };
        answers.insert(order_id, Stored { lines, answer });
    }
    Ok(answers)
}

/// Stores the decisions on new orders as their answers. `None` if somebody else stored one of them since they were
/// looked up. Rows are written in the order of their ids, so that two who write the same wait in one direction only.
///
/// Lines go over as one flat array with the bounds of each order in it, because an array of arrays cannot be ragged.
pub(super) async fn store(
    conn: &mut PgConnection,
    decided: Vec<(&Order, Decision)>,
    ttl: Duration,
) -> Result<Option<Answers>, Fault> {
    let mut decided = decided;
    decided.sort_unstable_by_key(|(order, _)| &order.id);
    let (mut product_ids, mut quantities) = (Vec::new(), Vec::new());
    let (mut ids, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reasons, mut shortages_of) = (Vec::new(), Vec::new());
    for (order, decision) in &decided {
        ids.push(order.id.as_str());
        firsts.push(product_ids.len() as i32 + 1);
        for item in order.request.lines.items() {
            product_ids.push(item.product_id);
            quantities.push(item.quantity);
        }
        lasts.push(product_ids.len() as i32);
        let rejection = match decision {
            Decision::Held => None,
            Decision::Rejected { reason, shortages } => Some((reason.as_str(), Json(shortages))),
        };
        let (reason, shortages) = rejection.unzip();
        reasons.push(reason);
        shortages_of.push(shortages);
    }
    let rows = sqlx::query!(
        "insert into holds (order_id, status, product_ids, quantities, expires_at, reason, shortages)
         select
             o.order_id,
             (case when o.reason is null then 'held' else 'rejected' end)::hold_status,
             ($2::bigint[])[o.first : o.last],
             ($3::bigint[])[o.first : o.last],
             case when o.reason is null then statement_timestamp() + make_interval(secs => $4) end,
             o.reason,
             o.shortages
         from unnest($1::text[], $5::int[], $6::int[], $7::text[], $8::jsonb[])
             as o (order_id, first, last, reason, shortages)
         on conflict (order_id) do nothing
         returning order_id, expires_at",
        &ids as &[&str],
        &product_ids,
        &quantities,
        ttl.as_secs_f64(),
        &firsts,
        &lasts,
        &reasons as &[Option<&str>],
        &shortages_of as &[Option<Json<&Vec<Shortage>>>],
    )
    .fetch_all(conn)
    .await?;
    if rows.len() < decided.len() {
        return Ok(None);
    }
    let mut expiries: HashMap<String, Option<DateTime<Utc>>> =
        rows.into_iter().map(|row| (row.order_id, row.expires_at)).collect();
    let mut answers = Answers::with_capacity(decided.len());
    for (order, decision) in decided {
        let lines = order.request.lines.clone();
        let answer = match (decision, expiries.remove(order.id.as_str()).flatten()) {
            (Decision::Rejected { reason, shortages }, _) => Answer::Rejected { reason, shortages },
            (Decision::Held, Some(expires_at)) => Answer::Reserved { lines: lines.clone(), expires_at },
            (Decision::Held, None) => return Err(Fault::Sticky(anyhow::anyhow!("a hold without an end"))),
        };
        answers.insert(order.id.clone(), Stored { lines: Some(lines), answer });
    }
    Ok(Some(answers))
}
