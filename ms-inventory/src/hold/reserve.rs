use std::collections::HashSet;
use std::time::Duration;

use ::events::OrderId;
use ::events::orders::OrderCreated;
use database::{LockWait, Pool};
use messaging::Fault;
use sqlx::PgConnection;

use super::answer::{Answer, Answers, Decided, store, stored};
use super::expire::{Due, due, expire, unlocked};
use super::forecast::Forecast;
use super::{Attempt, Changes, Transaction, commit, lock, look, write};
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

/// What [`Reserver::reserve`] did.
#[derive(Debug)]
pub struct Reserved {
    /// One answer an order, in the same order.
    pub answers: Vec<Answer>,
    /// How many holds whose time had run out were released for it; their events are in the outbox.
    pub expired: usize,
}

/// Reserves stock for batches of orders, one after the other.
#[derive(Debug)]
pub struct Reserver {
    pool: Pool,
    forecast: Forecast,
}

impl Reserver {
    /// A reserver that has seen nothing yet.
    pub fn new(pool: Pool) -> Self {
        Self { pool, forecast: Forecast::default() }
    }

    /// Where it stores what it decides.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Decides a batch of orders in one transaction with a constant number of statements, and holds `ttl` long what they
    /// get. It waits so long for `locks`. An order that is known is told how it stands now; of two with one id, the first counts.
    ///
    /// # Errors
    /// Nothing is changed when it fails.
    pub async fn reserve(&self, locks: LockWait, orders: &[Order], ttl: Duration) -> Result<Reserved, Fault> {
        if orders.is_empty() {
            return Ok(Reserved { answers: Vec::new(), expired: 0 });
        }
        let mut seen = HashSet::with_capacity(orders.len());
        let orders_once: Vec<&Order> = orders.iter().filter(|order| seen.insert(&order.id)).collect();
        let sound = orders_once.iter().filter(|order| order.request.absurdity.is_none());
        let mut products: Vec<i64> = sound.flat_map(|order| order.request.lines.product_ids()).collect();
        products.sort_unstable();
        products.dedup();
        let reservation = Reservation { orders: &orders_once, ttl };
        let done = match locks {
            LockWait::Usual => self.at_once(&reservation, &products).await?,
            // One statement cannot say how long it waits.
            LockWait::Brief => None,
        };
        let done = match done {
            Some(done) => done,
            None => commit(&self.pool, locks, products, reservation).await?,
        };
        self.forecast.learn(done.levels);
        let answer =
            |order: &Order| done.answers.get(&order.id).map_or(Answer::Conflict, |stored| stored.answer_to(order));
        Ok(Reserved { answers: orders.iter().map(answer).collect(), expired: done.expired })
    }

    /// The short way: decides on the forecast, and writes that if the forecast is true. `None` if it is not.
    async fn at_once(&self, reservation: &Reservation<'_>, products: &[i64]) -> Result<Option<Done>, Fault> {
        let Some(mut levels) = self.forecast.levels(products) else { return Ok(None) };
        let mut connection = self.pool.acquire().await?;
        let unknown: Vec<i64> = products.iter().copied().filter(|id| !levels.contains_key(id)).collect();
        if !unknown.is_empty() {
            levels.extend(look(&mut connection, &unknown).await?);
        }
        let Reservation { orders, ttl } = reservation;
        let decisions = decide(&levels, orders.iter().map(|order| &order.request));
        let short = short(&levels, &decisions);
        let mut changes = Changes::default();
        let orders = decided(orders.iter().copied(), decisions, &mut changes);
        let after = changes.applied_to(&levels);
        // One statement that commits by itself: the pool has handed out a connection that is in no transaction.
        let storing = store(&mut connection, Decided { orders, levels: &levels, changes, short: &short }, *ttl).await;
        if storing.is_err() {
            connection.close();
        }
        let stored = storing?;
        match stored {
            Some(_) => self.forecast.was_true(),
            None => self.forecast.was_false(),
        }
        Ok(stored.map(|answers| Done { answers, levels: after, expired: 0 }))
    }
}

struct Reservation<'a> {
    /// Each id once, in the order of arrival.
    orders: &'a [&'a Order],
    ttl: Duration,
}

struct Done {
    answers: Answers,
    /// What the stock is afterwards.
    levels: Levels,
    expired: usize,
}

impl Transaction for Reservation<'_> {
    type Done = Done;

    /// The long way.
    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<Done>, Fault> {
        let locked = lock(conn, products).await?;
        let mut answers = stored(conn, self.orders).await?;
        let fresh: Vec<&Order> = self.orders.iter().copied().filter(|order| !answers.contains_key(&order.id)).collect();
        let (mut levels, mut changes) = (locked.clone(), Changes::default());
        // Nobody is told that something is held whose time has run out.
        let due_again: Vec<Due> = answers.iter().filter_map(|(id, stored)| Some(Due::of(id, stored.due()?))).collect();
        let unlocked_again = unlocked(due_again.iter().map(|hold| &hold.lines), products);
        if !unlocked_again.is_empty() {
            return Ok(Attempt::Again(unlocked_again));
        }
        release(conn, &due_again, &mut answers, &mut levels, &mut changes).await?;
        let mut expired = due_again.len();
        let mut short;
        let decisions = loop {
            let decisions = decide(&levels, fresh.iter().map(|order| &order.request));
            short = self::short(&levels, &decisions);
            let due = if short.is_empty() { Vec::new() } else { due(conn, Some(&short)).await? };
            if due.is_empty() {
                break decisions;
            }
            let unlocked = unlocked(due.iter().map(|hold| &hold.lines), products);
            if !unlocked.is_empty() {
                return Ok(Attempt::Again(unlocked));
            }
            release(conn, &due, &mut answers, &mut levels, &mut changes).await?;
            expired += due.len();
        };
        let orders = decided(fresh, decisions, &mut changes);
        let levels = changes.applied_to(&locked);
        if orders.is_empty() {
            write(conn, &locked, &levels).await?;
        } else {
            let Some(new) = store(conn, Decided { orders, levels: &locked, changes, short: &short }, self.ttl).await?
            else {
                return Ok(Attempt::Again(Vec::new()));
            };
            answers.extend(new);
        }
        Ok(Attempt::Done(Done { answers, levels, expired }))
    }
}

/// Expires holds, whose stock rows are locked, and takes what they held off the levels and into the changes. An order among
/// them that is asked for again is told so.
async fn release(
    conn: &mut PgConnection,
    due: &[Due],
    answers: &mut Answers,
    levels: &mut Levels,
    changes: &mut Changes,
) -> Result<(), Fault> {
    expire(conn, due).await?;
    for hold in due {
        hold.lines.free(levels);
        changes.free(&hold.lines);
        if let Some(stored) = answers.get_mut(&hold.order_id) {
            stored.expire();
        }
    }
    Ok(())
}

/// Each order with its decision. What is held goes into `changes`.
fn decided<'a>(
    orders: impl IntoIterator<Item = &'a Order>,
    decisions: Vec<Decision>,
    changes: &mut Changes,
) -> Vec<(&'a Order, Decision)> {
    let decided: Vec<(&Order, Decision)> = orders.into_iter().zip(decisions).collect();
    for (order, _) in decided.iter().filter(|(_, decision)| *decision == Decision::Held) {
        changes.hold(&order.request.lines);
    }
    decided
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
