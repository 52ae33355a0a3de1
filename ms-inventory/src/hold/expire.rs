use ::events::OrderId;
use ::events::inventory::{ReleaseCause, StockReleased};
use database::{LockWait, Pool};
use messaging::{Fault, Outgoing, Trace, outbox};
use sqlx::PgConnection;

use super::{Attempt, Transaction, commit, lock, write};
use crate::stock::Lines;

/// The most holds that are expired in one statement.
const DUE: i64 = 500;

/// Releases the holds whose time ran out, oldest first, and puts their events into the outbox. Tells how many; call it
/// again until there are none.
///
/// # Errors
/// Nothing is changed when it fails.
pub async fn expire_due(pool: &Pool) -> Result<usize, Fault> {
    commit(pool, LockWait::Usual, Vec::new(), Expiry).await
}

struct Expiry;

impl Transaction for Expiry {
    type Done = usize;

    async fn attempt(&self, conn: &mut PgConnection, products: &[i64]) -> Result<Attempt<usize>, Fault> {
        let locked = lock(conn, products).await?;
        let due = due(conn, None).await?;
        let unlocked = unlocked(due.iter().map(|hold| &hold.lines), products);
        if !unlocked.is_empty() {
            return Ok(Attempt::Again(unlocked));
        }
        expire(conn, &due).await?;
        let mut levels = locked.clone();
        due.iter().for_each(|hold| hold.lines.free(&mut levels));
        write(conn, &locked, &levels).await?;
        Ok(Attempt::Done(due.len()))
    }
}

/// The oldest holds whose time has run out; with `of`, only such as hold one of these products.
pub(super) async fn due(conn: &mut PgConnection, of: Option<&[i64]>) -> Result<Vec<Due>, Fault> {
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
    rows.into_iter().map(|row| Due::from_row(row.order_id, &row.product_ids, &row.quantities)).collect()
}

/// Marks holds that are due, and whose stock rows are locked, as expired. That is news to their orders, and goes into the
/// outbox.
pub(super) async fn expire(conn: &mut PgConnection, due: &[Due]) -> Result<(), Fault> {
    if due.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = due.iter().map(|hold| hold.order_id.as_str()).collect();
    sqlx::query!(
        "update holds
         set status = 'expired', settled_at = statement_timestamp()
         where order_id = any($1)",
        &ids as &[&str],
    )
    .execute(&mut *conn)
    .await?;
    let event = |hold: &Due| Outgoing::of(&hold.event(), Trace::start());
    let events: Vec<Outgoing> = due.iter().map(event).collect::<Result<_, _>>()?;
    outbox::enqueue(conn, &events).await?;
    Ok(())
}

/// The products of these lines whose stock rows are not among the locked ones. `locked` is sorted.
pub(super) fn unlocked<'a>(lines: impl Iterator<Item = &'a Lines>, locked: &[i64]) -> Vec<i64> {
    let products = lines.flat_map(Lines::product_ids);
    products.filter(|id| locked.binary_search(id).is_err()).collect()
}

/// A hold whose time is up.
pub(super) struct Due {
    pub(super) order_id: OrderId,
    pub(super) lines: Lines,
}

impl Due {
    /// The hold of an order.
    pub(super) fn of(order_id: &OrderId, lines: &Lines) -> Self {
        Self { order_id: order_id.clone(), lines: lines.clone() }
    }

    fn from_row(order_id: String, product_ids: &[i64], quantities: &[i64]) -> Result<Self, Fault> {
        let order_id = OrderId::try_from(order_id).map_err(|error| Fault::Sticky(error.into()))?;
        Ok(Self { order_id, lines: Lines::from_columns(product_ids, quantities) })
    }

    /// The event that tells of it.
    fn event(&self) -> StockReleased {
        let (items, cause) = (self.lines.items().to_vec(), ReleaseCause::Expired);
        StockReleased { order_id: self.order_id.clone(), items, cause, written_off: Vec::new() }
    }
}
