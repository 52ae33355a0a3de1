use std::collections::{BTreeSet, HashMap};

use ::events::OrderId;
use ::events::inventory::Shortage;
use database::{LockWait, Pool};
use messaging::Fault;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::expire::{due, expire, unlocked};
use super::{Attempt, Status, Transaction, commit, lock, write};
use crate::ledger::{self, Reason};
use crate::settlement::{Answer, Books, Ending, Known, Movement};
use crate::stock::Lines;

/// Who moves stock in the ledger when an order ends.
const ACTOR: &str = "order";

/// What [`settle`] did.
#[derive(Debug)]
pub struct Settled {
    /// One answer an ending, in the same order.
    pub answers: Vec<Answer>,
    /// How many holds whose time had run out were released for it; their events are in the outbox.
    pub expired: usize,
}

/// Ends orders, one after the other, by the [rule](crate::settlement), in one transaction with a constant number of
/// statements, which wait so long for `locks`.
///
/// # Errors
/// Nothing is changed when it fails.
pub async fn settle(pool: &Pool, locks: LockWait, endings: &[(OrderId, Ending)]) -> Result<Settled, Fault> {
    if endings.is_empty() {
        return Ok(Settled { answers: Vec::new(), expired: 0 });
    }
    let asked = endings.iter().filter_map(|(_, ending)| match ending {
        Ending::Completed(Some(request)) => Some(&request.lines),
        _ => None,
    });
    let products = asked.flat_map(Lines::product_ids).collect();
    commit(pool, locks, products, Settlement { endings }).await
}

struct Settlement<'a> {
    endings: &'a [(OrderId, Ending)],
}

impl Transaction for Settlement<'_> {
    type Done = Settled;

    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<Settled>, Fault> {
        let locked = lock(conn, products).await?;
        let known = known(conn, self.endings).await?;
        let stocked = known.values().filter(|order| order.status != Status::Rejected);
        let missing = unlocked(stocked.flat_map(|order| &order.lines), products);
        if !missing.is_empty() {
            return Ok(Attempt::Again(missing));
        }
        let (mut levels, mut orders, mut expired) = (locked.clone(), known.clone(), 0);
        let (books, answers) = loop {
            let mut books = Books::open(levels.clone(), orders.clone());
            let answers: Vec<Answer> = self.endings.iter().map(|(id, ending)| books.settle(id, ending)).collect();
            let short: Vec<i64> = books.short.iter().copied().collect();
            let due = if short.is_empty() { Vec::new() } else { due(conn, Some(&short)).await? };
            if due.is_empty() {
                break (books, answers);
            }
            let unlocked = unlocked(due.iter().map(|hold| &hold.lines), products);
            if !unlocked.is_empty() {
                return Ok(Attempt::Again(unlocked));
            }
            expire(conn, &due).await?;
            expired += due.len();
            for hold in &due {
                hold.lines.free(&mut levels);
                orders.entry(hold.order_id.clone()).and_modify(|order| order.status = Status::Expired);
            }
        };
        // Against what is stored by now, which the holds that expired are part of.
        if !store(conn, &orders, &books.orders).await? {
            return Ok(Attempt::Again(Vec::new()));
        }
        write(conn, &locked, &books.levels).await?;
        book(conn, &books.movements).await?;
        Ok(Attempt::Done(Settled { answers, expired }))
    }
}

/// What is known of the orders that end.
async fn known(conn: &mut PgConnection, endings: &[(OrderId, Ending)]) -> Result<HashMap<OrderId, Known>, Fault> {
    let ids: BTreeSet<&str> = endings.iter().map(|(id, _)| id.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let rows = sqlx::query!(
        r#"select order_id, status as "status: Status", product_ids, quantities, reason,
             shortages as "shortages: Json<Vec<Shortage>>", written_off
           from holds
           where order_id = any($1)"#,
        &ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let order_id = OrderId::try_from(row.order_id).map_err(|error| Fault::Sticky(error.into()))?;
        let lines = row.product_ids.zip(row.quantities).map(|(ids, quantities)| Lines::from_columns(&ids, &quantities));
        let (reason, shortages) = (row.reason.unwrap_or_default(), row.shortages.map(|Json(short)| short));
        let (shortages, written_off) = (shortages.unwrap_or_default(), row.written_off.unwrap_or_default());
        let order = Known { status: row.status, lines, reason, shortages, written_off };
        known.insert(order_id, order);
    }
    Ok(known)
}

/// Stores what became of orders; tells whether that was possible, because nobody else came between.
async fn store(
    conn: &mut PgConnection,
    before: &HashMap<OrderId, Known>,
    after: &HashMap<OrderId, Known>,
) -> sqlx::Result<bool> {
    let changed = after.iter().filter(|(id, order)| before.get(*id) != Some(*order));
    let mut changed: Vec<(&OrderId, Option<Status>, &Known)> =
        changed.map(|(id, order)| (id, before.get(id).map(|before| before.status), order)).collect();
    changed.sort_unstable_by_key(|(id, ..)| *id);
    let (new, old): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(_, was, _)| was.is_none());
    let stored = insert(conn, &new).await? + update(conn, &old).await?;
    Ok(stored == (new.len() + old.len()) as u64)
}

macro_rules! column {
    ($rows:expr, $get:expr) => {
        &$rows.iter().map($get).collect::<Vec<_>>()
    };
}

/// Stores orders nobody had heard of; tells how many of them nobody else has stored since.
///
/// Lines go over as one flat array with the bounds of each order in it, because an array of arrays cannot be ragged.
/// Where there are none, the bounds are null, and so is what they cut out.
async fn insert(conn: &mut PgConnection, orders: &[(&OrderId, Option<Status>, &Known)]) -> sqlx::Result<u64> {
    if orders.is_empty() {
        return Ok(0);
    }
    let (mut product_ids, mut quantities) = (Vec::new(), Vec::new());
    let mut bounds = Vec::with_capacity(orders.len());
    for (.., order) in orders {
        let first = product_ids.len() as i32 + 1;
        for item in order.lines.iter().flat_map(Lines::items) {
            product_ids.push(item.product_id);
            quantities.push(item.quantity);
        }
        bounds.push(order.lines.is_some().then_some((first, product_ids.len() as i32)));
    }
    let inserted = sqlx::query!(
        r#"insert into holds (order_id, status, product_ids, quantities, expires_at, reason, shortages, settled_at)
           select
               o.order_id,
               o.status,
               ($3::bigint[])[o.first : o.last],
               ($4::bigint[])[o.first : o.last],
               case when o.status <> 'rejected' then statement_timestamp() end,
               o.reason,
               o.shortages,
               case when o.status <> 'rejected' then statement_timestamp() end
           from unnest($1::text[], $2::hold_status[], $5::int[], $6::int[], $7::text[], $8::jsonb[])
               as o (order_id, status, first, last, reason, shortages)
           on conflict (order_id) do nothing"#,
        column!(orders, |(id, ..)| id.as_str()) as &[&str],
        column!(orders, |(.., order)| order.status) as &[Status],
        &product_ids,
        &quantities,
        column!(bounds, |bounds| bounds.map(|(first, _)| first)) as &[Option<i32>],
        column!(bounds, |bounds| bounds.map(|(_, last)| last)) as &[Option<i32>],
        column!(orders, |(.., order)| reason(order)) as &[Option<&str>],
        column!(orders, |(.., order)| shortages(order)) as &[Option<Json<&Vec<Shortage>>>],
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected())
}

/// Stores what became of orders that were known; tells how many of them were still what they were.
///
/// The products that were written off go over as text, because an array of arrays cannot be ragged. Hardly any order has one.
async fn update(conn: &mut PgConnection, orders: &[(&OrderId, Option<Status>, &Known)]) -> sqlx::Result<u64> {
    if orders.is_empty() {
        return Ok(0);
    }
    let updated = sqlx::query!(
        r#"update holds
           set status = o.status,
               expires_at = case when o.status <> 'rejected' then holds.expires_at end,
               reason = o.reason,
               shortages = o.shortages,
               written_off = o.written_off::bigint[],
               settled_at = statement_timestamp()
           from unnest($1::text[], $2::hold_status[], $3::hold_status[], $4::text[], $5::jsonb[], $6::text[])
               as o (order_id, was, status, reason, shortages, written_off)
           where holds.order_id = o.order_id and holds.status = o.was"#,
        column!(orders, |(id, ..)| id.as_str()) as &[&str],
        column!(orders, |(_, was, _)| *was) as &[Option<Status>],
        column!(orders, |(.., order)| order.status) as &[Status],
        column!(orders, |(.., order)| reason(order)) as &[Option<&str>],
        column!(orders, |(.., order)| shortages(order)) as &[Option<Json<&Vec<Shortage>>>],
        column!(orders, |(.., order)| written_off(order)) as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected())
}

fn reason(order: &Known) -> Option<&str> {
    (order.status == Status::Rejected).then_some(order.reason.as_str())
}

fn shortages(order: &Known) -> Option<Json<&Vec<Shortage>>> {
    (order.status == Status::Rejected).then_some(Json(&order.shortages))
}

/// As PostgreSQL reads an array.
fn written_off(order: &Known) -> Option<String> {
    let ids: Vec<String> = order.written_off.iter().map(i64::to_string).collect();
    (!ids.is_empty()).then(|| format!("{{{}}}", ids.join(",")))
}

/// Books what left the warehouse, what came back, and what was written off.
async fn book(conn: &mut PgConnection, movements: &[Movement]) -> sqlx::Result<()> {
    if movements.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into movements (product_id, quantity, reason, note, actor, order_id)
         select product_id, quantity, reason, case when reason = 'adjusted' then $5 else '' end, $4, order_id
         from unnest($1::bigint[], $2::bigint[], $3::text[], $6::movement_reason[])
             as moved (product_id, quantity, order_id, reason)",
        column!(movements, |moved| moved.product_id),
        column!(movements, |moved| moved.quantity),
        column!(movements, |moved| moved.order_id.as_str()) as &[&str],
        ACTOR,
        ledger::PRODUCT_DELETED,
        column!(movements, |moved| moved.reason) as &[Reason],
    )
    .execute(conn)
    .await?;
    Ok(())
}
