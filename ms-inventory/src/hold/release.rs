use std::collections::HashMap;

use ::events::OrderId;
use ::events::inventory::ReleaseCause;
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::{PgConnection, PgPool};

use super::{Attempt, Changes, Ended, Status, Transaction, commit, lock};

/// The stored answer to an order whose cancellation came first.
const CANCELLED_FIRST: &str = "Order was cancelled";

/// The most holds that are expired in one statement.
const DUE: i64 = 500;

/// Releases what is held for cancelled orders, in one transaction with a constant number of statements, and tells what
/// was: for each order its hold, if a cancellation ended it, now or before. An order nobody has heard of yet is
/// remembered as cancelled, and rejected when it comes.
///
/// # Errors
/// Nothing is changed when it fails.
pub async fn cancel(pool: &PgPool, orders: &[OrderId]) -> Result<HashMap<OrderId, Ended>, Fault> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    commit(pool, Vec::new(), Cancellation { orders }).await
}

struct Cancellation<'a> {
    orders: &'a [OrderId],
}

impl Transaction for Cancellation<'_> {
    type Done = HashMap<OrderId, Ended>;

    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<Self::Done>, Fault> {
        lock(conn, products).await?;
        let mut ids: Vec<&str> = self.orders.iter().map(OrderId::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = sqlx::query!(
            r#"select order_id, status as "status: Status", product_ids, quantities
           from holds
           where order_id = any($1)"#,
            &ids as &[&str],
        )
        .fetch_all(&mut *conn)
        .await?;

        let (mut held, mut released) = (Vec::new(), HashMap::new());
        for row in rows {
            ids.retain(|id| *id != row.order_id);
            let (Some(product_ids), Some(quantities)) = (row.product_ids, row.quantities) else {
                continue;
            };
            let hold = Ended::from_row(row.order_id, &product_ids, &quantities)?;
            match row.status {
                Status::Held => held.push(hold),
                Status::Released => drop(released.insert(hold.order_id.clone(), hold)),
                Status::Committed | Status::Expired | Status::Rejected => (),
            }
        }
        let unlocked = unlocked(&held, products);
        if !unlocked.is_empty() {
            return Ok(Attempt::Again(unlocked));
        }
        let unknown = ids;
        let remembered = sqlx::query!(
            "insert into holds (order_id, status, reason)
         select unnest($1::text[]), 'rejected', $2
         on conflict (order_id) do nothing",
            &unknown as &[&str],
            CANCELLED_FIRST,
        )
        .execute(&mut *conn)
        .await?;
        if remembered.rows_affected() < unknown.len() as u64 {
            return Ok(Attempt::Again(Vec::new()));
        }
        end(conn, &held, Status::Released).await?;
        free(conn, &held).await?;
        released.extend(held.into_iter().map(|hold| (hold.order_id.clone(), hold)));
        Ok(Attempt::Done(released))
    }
}

/// Releases the holds whose time ran out, oldest first, and puts their events into the outbox. Tells how many; call it
/// again until there are none.
///
/// # Errors
/// Nothing is changed when it fails.
pub async fn expire_due(pool: &PgPool) -> Result<usize, Fault> {
    commit(pool, Vec::new(), Expiry).await
}

struct Expiry;

impl Transaction for Expiry {
    type Done = usize;

    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<usize>, Fault> {
        lock(conn, products).await?;
        let due = due(conn, None).await?;
        let unlocked = unlocked(&due, products);
        if !unlocked.is_empty() {
            return Ok(Attempt::Again(unlocked));
        }
        end(conn, &due, Status::Expired).await?;
        free(conn, &due).await?;
        Ok(Attempt::Done(due.len()))
    }
}

/// The oldest holds whose time has run out; with `of`, only such as hold one of these products.
pub(super) async fn due(conn: &mut PgConnection, of: Option<&[i64]>) -> Result<Vec<Ended>, Fault> {
    let rows = sqlx::query!(
        r#"select order_id, product_ids as "product_ids!", quantities as "quantities!"
           from holds
           where status = 'held'
             and expires_at <= statement_timestamp()
             and ($1::bigint[] is null or product_ids && $1)
           order by expires_at
           limit $2"#,
        of,
        DUE,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ended::from_row(row.order_id, &row.product_ids, &row.quantities)).collect()
}

/// Marks held orders, whose stock rows are locked, as ended. That they expired is news to the order, and goes into the
/// outbox; that they were cancelled is the answer to a message.
pub(super) async fn end(conn: &mut PgConnection, holds: &[Ended], status: Status) -> Result<(), Fault> {
    if holds.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = holds.iter().map(|hold| hold.order_id.as_str()).collect();
    sqlx::query!(
        "update holds
         set status = $2, settled_at = statement_timestamp()
         where order_id = any($1)",
        &ids as &[&str],
        status as Status,
    )
    .execute(&mut *conn)
    .await?;
    if status == Status::Expired {
        let event = |hold: &Ended| Outgoing::of(&hold.event(ReleaseCause::Expired), Trace::start());
        let events: Vec<Outgoing> = holds.iter().map(event).collect::<Result<_, _>>()?;
        outbox::enqueue(conn, &events).await?;
    }
    Ok(())
}

async fn free(conn: &mut PgConnection, holds: &[Ended]) -> Result<(), Fault> {
    let mut changes = Changes::default();
    for hold in holds {
        changes.free(&hold.lines);
    }
    Ok(changes.apply(conn).await?)
}

/// The products of these holds whose stock rows are not among the locked ones. `locked` is sorted.
pub(super) fn unlocked(holds: &[Ended], locked: &[i64]) -> Vec<i64> {
    let products = holds.iter().flat_map(|hold| hold.lines.product_ids());
    products.filter(|id| locked.binary_search(id).is_err()).collect()
}
