use std::collections::HashMap;
use std::time::Duration;

use ::events::OrderId;
use ::events::inventory::{ReleaseCause, Shortage};
use chrono::{DateTime, Utc};
use messaging::Fault;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{Changes, Order, Status};
use crate::stock::{Decision, Levels, Lines};

/// What an order is told: its outcome, and when it is asked for again, how it stands by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of its lines are held.
    Reserved {
        /// What is held.
        lines: Lines,
        /// Until when; `None` once it is sold.
        expires_at: Option<DateTime<Utc>>,
    },
    /// What was held for it is free again.
    Released {
        /// What was held.
        lines: Lines,
        /// Why it was released.
        cause: ReleaseCause,
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

/// What known orders are told.
pub(super) type Answers = HashMap<OrderId, Stored>;

/// The answer to a known order, and what it asked for.
pub(super) struct Stored {
    /// Not known of a cancellation that came before its order.
    lines: Option<Lines>,
    answer: Answer,
    /// Whether it is held and its time has run out, which nobody has noticed yet.
    is_due: bool,
}

impl Stored {
    pub(super) fn answer_to(&self, order: &Order) -> Answer {
        match &self.lines {
            Some(lines) if *lines != order.request.lines => Answer::Conflict,
            _ => self.answer.clone(),
        }
    }

    /// What is held although its time has run out.
    pub(super) fn due(&self) -> Option<&Lines> {
        self.lines.as_ref().filter(|_| self.is_due)
    }

    /// Its hold was released in this transaction, because its time has run out.
    pub(super) fn expire(&mut self) {
        if let Some(lines) = self.lines.clone() {
            self.answer = Answer::Released { lines, cause: ReleaseCause::Expired };
            self.is_due = false;
        }
    }
}

/// What is stored of an order, as far as it is told.
struct Record {
    status: Status,
    lines: Option<Lines>,
    expires_at: Option<DateTime<Utc>>,
    reason: String,
    shortages: Vec<Shortage>,
}

impl Record {
    /// The answer to a repeated order by its status. `None` only for a record that cannot be: without the lines that it
    /// holds, sold or released.
    fn answer(&self) -> Option<Answer> {
        let released = |cause| Some(Answer::Released { lines: self.lines.clone()?, cause });
        match self.status {
            Status::Held => Some(Answer::Reserved { lines: self.lines.clone()?, expires_at: self.expires_at }),
            Status::Committed => Some(Answer::Reserved { lines: self.lines.clone()?, expires_at: None }),
            Status::Released => released(ReleaseCause::Cancelled),
            Status::Expired => released(ReleaseCause::Expired),
            Status::Returned => released(ReleaseCause::Refunded),
            Status::Rejected => {
                Some(Answer::Rejected { reason: self.reason.clone(), shortages: self.shortages.clone() })
            }
        }
    }
}

/// What orders are told that are known already, by how they stand now.
pub(super) async fn stored(conn: &mut PgConnection, orders: &[&Order]) -> Result<Answers, Fault> {
    let ids: Vec<&str> = orders.iter().map(|order| order.id.as_str()).collect();
    let rows = sqlx::query!(
        r#"select order_id, status as "status: Status", product_ids, quantities, expires_at, reason,
             shortages as "shortages: Json<Vec<Shortage>>",
             status = 'held' and expires_at <= statement_timestamp() as "is_due!"
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
        let record = Record {
            status: row.status,
            lines,
            expires_at: row.expires_at,
            reason: row.reason.unwrap_or_default(),
            shortages: row.shortages.map(|Json(shortages)| shortages).unwrap_or_default(),
        };
        let answer = record
            .answer()
            .ok_or_else(|| Fault::Sticky(anyhow::anyhow!("order {order_id} is {:?} without lines", record.status)))?;
        answers.insert(order_id, Stored { lines: record.lines, answer, is_due: row.is_due });
    }
    Ok(answers)
}

/// Decisions on new orders, and what they rest on.
pub(super) struct Decided<'a> {
    /// Each order with its decision; no two with one id.
    pub(super) orders: Vec<(&'a Order, Decision)>,
    /// The levels they were decided on: of all products asked for that exist.
    pub(super) levels: &'a Levels,
    /// What becomes of these.
    pub(super) changes: Changes,
    /// Products of which some order gets too little, whatever has expired by now.
    pub(super) short: &'a [i64],
}

/// Stores decisions as the answers of their orders and changes the stock accordingly, in one statement. `None`, and nothing
/// is done, if what they rest on is not so: another level, an order that is known, an expired hold on what is short.
///
/// The statement locks as all do: stock rows in the order of product ids, then holds in the order of order ids. An order
/// that somebody else stores while it runs is a violation of the primary key.
///
/// Lines go over as one flat array with the bounds of each order in it, because an array of arrays cannot be ragged.
pub(super) async fn store(
    conn: &mut PgConnection,
    decided: Decided<'_>,
    ttl: Duration,
) -> Result<Option<Answers>, Fault> {
    let Decided { orders: mut decided, levels, changes, short } = decided;
    let (mut products, mut on_hand, mut reserved, mut change) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, level) in levels {
        products.push(*id);
        on_hand.push(level.on_hand);
        reserved.push(level.reserved);
        change.push(changes.of(*id));
    }
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
        r#"with decided_on as (
             select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
               as d (product_id, on_hand, reserved, change)
         ), locked as materialized (
             select product_id, change
             from decided_on join stock using (product_id, on_hand, reserved)
             order by product_id
             for update of stock
         ), agreed as materialized (
             select
               (select count(*) from locked) = cardinality($1)
               and not exists (select from holds where order_id = any($5))
               and (cardinality($6::bigint[]) = 0 or not exists (
                 select from holds
                 where status = 'held' and expires_at <= statement_timestamp() and product_ids && $6
               )) as yes
         ), changed as (
             update stock
             set reserved = reserved + change
             from locked
             where stock.product_id = locked.product_id and change <> 0 and (select yes from agreed)
         )
         insert into holds (order_id, status, product_ids, quantities, expires_at, reason, shortages)
         select
             o.order_id,
             (case when o.reason is null then 'held' else 'rejected' end)::hold_status,
             ($7::bigint[])[o.first : o.last],
             ($8::bigint[])[o.first : o.last],
             case when o.reason is null then statement_timestamp() + make_interval(secs => $9) end,
             o.reason,
             o.shortages
         from unnest($5::text[], $10::int[], $11::int[], $12::text[], $13::jsonb[])
             as o (order_id, first, last, reason, shortages)
         where (select yes from agreed)
         returning order_id, expires_at"#,
        &products,
        &on_hand,
        &reserved,
        &change,
        &ids as &[&str],
        short,
        &product_ids,
        &quantities,
        ttl.as_secs_f64(),
        &firsts,
        &lasts,
        &reasons as &[Option<&str>],
        &shortages_of as &[Option<Json<&Vec<Shortage>>>],
    )
    .fetch_all(conn)
    .await;
    let rows = match rows {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(None),
        rows => rows?,
    };
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
            (Decision::Held, Some(expires_at)) => {
                Answer::Reserved { lines: lines.clone(), expires_at: Some(expires_at) }
            }
            (Decision::Held, None) => return Err(Fault::Sticky(anyhow::anyhow!("a hold without an end"))),
        };
        answers.insert(order.id.clone(), Stored { lines: Some(lines), answer, is_due: false });
    }
    Ok(Some(answers))
}

#[cfg(test)]
mod tests {
    use ::events::Item;

    use super::*;

    #[test]
    fn a_repeated_order_is_answered_by_the_status_of_its_record() {
        let (lines, end) = (Lines::of(&[Item { product_id: 1, quantity: 2 }]), DateTime::UNIX_EPOCH);
        let shortages = vec![Shortage { product_id: 1, requested: 2, available: 1 }];
        let reserved = |expires_at| Answer::Reserved { lines: lines.clone(), expires_at };
        let released = |cause| Answer::Released { lines: lines.clone(), cause };
        let rejected = Answer::Rejected { reason: "Insufficient stock".to_owned(), shortages: shortages.clone() };
        let table = [
            (Status::Held, reserved(Some(end))),
            (Status::Committed, reserved(None)),
            (Status::Released, released(ReleaseCause::Cancelled)),
            (Status::Expired, released(ReleaseCause::Expired)),
            (Status::Returned, released(ReleaseCause::Refunded)),
            (Status::Rejected, rejected),
        ];
        for (status, answer) in table {
            let is_rejected = status == Status::Rejected;
            let mut record = Record {
                status,
                lines: Some(lines.clone()),
                // The columns of each status, as the constraints of the table demand.
                expires_at: (!is_rejected).then_some(end),
                reason: if is_rejected { "Insufficient stock".to_owned() } else { String::new() },
                shortages: if is_rejected { shortages.clone() } else { Vec::new() },
            };
            assert_eq!(record.answer(), Some(answer.clone()), "{status:?}");

            // An order that ended before it came has no lines, and can only be rejected.
            record.lines = None;
            assert_eq!(record.answer(), is_rejected.then_some(answer), "{status:?} without lines");
        }
    }
}
