use std::collections::HashSet;
use std::time::Duration;

use ::events::OrderId;
use ::events::orders::OrderCreated;
use messaging::Fault;
use sqlx::{PgConnection, PgPool};

use super::answer::{Answer, Answers, store, stored};
use super::release::{due, end, unlocked};
use super::{Attempt, Changes, Status, Transaction, commit, lock};
use crate::stock::{Decision, Levels, Request, decide};

/// An order that wants stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// What it asks for.
    pub request: Request,
}

impl From<OrderCreated> for Order {
    fn from(event: OrderCreated) -> Self {
        Self { request: Request::of(&event.items), id: event.order_id }
    }
}

/// What [`reserve`] did.
#[derive(Debug)]
pub struct Reserved {
    /// One answer an order, in the same order.
    pub answers: Vec<Answer>,
    /// How many holds whose time had run out were released for it; their events are in the outbox.
    pub expired: usize,
}

/// Decides a batch of orders in one transaction with a constant number of statements, and holds `ttl` long what they
/// get. An order that is known gets the answer it got; of two with one id, the first counts.
///
/// # Errors
/// Nothing is changed when it fails.
pub async fn reserve(pool: &PgPool, orders: &[Order], ttl: Duration) -> Result<Reserved, Fault> {
    if orders.is_empty() {
        return Ok(Reserved { answers: Vec::new(), expired: 0 });
    }
    let mut seen = HashSet::with_capacity(orders.len());
    let orders_once: Vec<&Order> = orders.iter().filter(|order| seen.insert(&order.id)).collect();
    let sound = orders_once.iter().filter(|order| order.request.absurdity.is_none());
    let products = sound.flat_map(|order| order.request.lines.product_ids()).collect();
    let (answers, expired) = commit(pool, products, Reservation { orders: &orders_once, ttl }).await?;
    let answer = |order: &Order| answers.get(&order.id).map_or(Answer::Conflict, |stored| stored.answer_to(order));
    Ok(Reserved { answers: orders.iter().map(answer).collect(), expired })
}

struct Reservation<'a> {
    /// Each id once, in the order of arrival.
    orders: &'a [&'a Order],
    ttl: Duration,
}

impl Transaction for Reservation<'_> {
    type Done = (Answers, usize);

    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<Self::Done>, Fault> {
        let mut levels = lock(conn, products).await?;
        let mut answers = stored(conn, self.orders).await?;
        let fresh: Vec<&Order> = self.orders.iter().filter(|order| !answers.contains_key(&order.id)).copied().collect();
        let mut changes = Changes::default();
        let mut expired = 0;
        let decisions = loop {
            let decisions = decide(&levels, fresh.iter().map(|order| &order.request));
            let short = short(&levels, &decisions);
            let due = if short.is_empty() { Vec::new() } else { due(conn, Some(&short)).await? };
            if due.is_empty() {
                break decisions;
            }
            let unlocked = unlocked(&due, products);
            if !unlocked.is_empty() {
                return Ok(Attempt::Again(unlocked));
            }
            end(conn, &due, Status::Expired).await?;
            expired += due.len();
            for item in due.iter().flat_map(|hold| hold.lines.items()) {
                levels.entry(item.product_id).and_modify(|level| level.reserved -= item.quantity);
            }
            due.iter().for_each(|hold| changes.free(&hold.lines));
        };
        let decided: Vec<(&Order, Decision)> = fresh.into_iter().zip(decisions).collect();
        for (order, _) in decided.iter().filter(|(_, decision)| *decision == Decision::Held) {
            changes.hold(&order.request.lines);
        }
        if !decided.is_empty() {
            let Some(new) = store(conn, decided, self.ttl).await? else {
                return Ok(Attempt::Again(Vec::new()));
            };
            answers.extend(new);
        }
        changes.apply(conn).await?;
        Ok(Attempt::Done((answers, expired)))
    }
}

/// The products whose shortage an expired hold could mend.
fn short(levels: &Levels, decisions: &[Decision]) -> Vec<i64> {
    let shortages = decisions.iter().flat_map(|decision| match decision {
        Decision::Held => &[][..],
        Decision::Rejected { shortages, .. } => shortages,
    });
    let mut short: Vec<i64> = shortages.map(|s| s.product_id).filter(|id| levels.contains_key(id)).collect();
    short.sort_unstable();
    short.dedup();
    short
}
