//! The rule of [`stock`](crate::stock) in the database: what is held for which order, and the answer each order got.
//!
//! [`Reserver`] decides a batch of new orders, [`settle`] ends orders, [`expire_due`] ends holds whose time is up. All
//! follow one rule of locking: **stock rows first, in the order of product ids; then holds, in the order of order ids.**
//! Whoever changes a hold has locked the stock rows of all its products, so no two transactions can wait for each other,
//! and a hold can be read without a lock by anyone who has them.

mod answer;
mod expire;
mod explain;
mod forecast;
pub mod read;
mod reserve;
mod settle;

use std::collections::BTreeMap;

use database::{LockWait, Pool};
use messaging::Fault;
use sqlx::PgConnection;

use crate::stock::{Level, Levels, Lines};

pub use answer::Answer;
pub use expire::expire_due;
pub use explain::explain;
pub use reserve::{Order, Reserved, Reserver};
pub use settle::{Settled, settle};

/// What becomes of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "hold_status", rename_all = "snake_case")]
pub enum Status {
    /// Reserved, until its time runs out.
    Held,
    /// Sold.
    Committed,
    /// Cancelled.
    Released,
    /// Its time ran out.
    Expired,
    /// Sold, refunded, and back.
    Returned,
    /// Nothing was ever held.
    Rejected,
}

/// A transaction on stock and holds.
trait Transaction: Sync {
    type Done: Send;

    /// Tries it, with the stock rows of `products` (sorted) to be locked first.
    fn attempt(
        &self,
        conn: &mut PgConnection,
        products: &[i64],
    ) -> impl Future<Output = Result<Attempt<Self::Done>, Fault>> + Send;
}

/// How one try at a transaction ended.
enum Attempt<T> {
    /// It can be committed.
    Done(T),
    /// Somebody else came between two of its statements: to be rolled back and tried again, with the stock rows of
    /// these products locked as well.
    Again(Vec<i64>),
}

/// Each attempt locks what the one before found missing, so few are needed. A batch that needs more than this many is
/// handed back to wait and come again.
const MAX_ATTEMPTS: usize = 10;

async fn commit<T: Transaction>(
    pool: &Pool,
    locks: LockWait,
    mut products: Vec<i64>,
    transaction: T,
) -> Result<T::Done, Fault> {
    for _ in 0..MAX_ATTEMPTS {
        products.sort_unstable();
        products.dedup();
        let mut tx = pool.begin_with(locks).await?;
        match transaction.attempt(&mut tx, &products).await? {
            Attempt::Done(done) => {
                tx.commit().await?;
                return Ok(done);
            }
            Attempt::Again(missing) => {
                tx.rollback().await;
                products.extend(missing);
            }
        }
    }
    Err(Fault::Server(anyhow::anyhow!("others came between {MAX_ATTEMPTS} times in a row")))
}

/// Locks the stock rows of products and reads them. `products` is sorted.
async fn lock(conn: &mut PgConnection, products: &[i64]) -> sqlx::Result<Levels> {
    let rows = sqlx::query!(
        "select product_id, on_hand, reserved
         from stock
         where product_id = any($1)
         order by product_id
         for update",
        products,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.product_id, Level { on_hand: row.on_hand, reserved: row.reserved })).collect())
}

/// Reads the stock rows of products as they are now, and not for longer.
async fn look(conn: &mut PgConnection, products: &[i64]) -> sqlx::Result<Levels> {
    let rows = sqlx::query!("select product_id, on_hand, reserved from stock where product_id = any($1)", products)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.product_id, Level { on_hand: row.on_hand, reserved: row.reserved })).collect())
}

/// By how much `reserved` changes, by product.
#[derive(Debug, Default)]
struct Changes(BTreeMap<i64, i64>);

impl Changes {
    fn hold(&mut self, lines: &Lines) {
        for item in lines.items() {
            *self.0.entry(item.product_id).or_default() += item.quantity;
        }
    }

    fn free(&mut self, lines: &Lines) {
        for item in lines.items() {
            *self.0.entry(item.product_id).or_default() -= item.quantity;
        }
    }

    fn of(&self, product_id: i64) -> i64 {
        self.0.get(&product_id).copied().unwrap_or_default()
    }

    /// The levels once these are applied.
    fn applied_to(&self, levels: &Levels) -> Levels {
        let apply = |(id, level): (&i64, &Level)| (*id, Level { reserved: level.reserved + self.of(*id), ..*level });
        levels.iter().map(apply).collect()
    }
}

/// Writes the levels that are not what they were. Their rows are locked.
async fn write(conn: &mut PgConnection, before: &Levels, after: &Levels) -> sqlx::Result<()> {
    let changed: Vec<(&i64, &Level)> = after.iter().filter(|(id, level)| before.get(*id) != Some(*level)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update stock
         set on_hand = new.on_hand, reserved = new.reserved
         from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as new (product_id, on_hand, reserved)
         where stock.product_id = new.product_id",
        &changed.iter().map(|(id, _)| **id).collect::<Vec<_>>(),
        &changed.iter().map(|(_, level)| level.on_hand).collect::<Vec<_>>(),
        &changed.iter().map(|(_, level)| level.reserved).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
