//! Products that inventory lists no more: its ProductDeleted was lost, and a complete fill shows it.
//!
//! Each row remembers in `told_at` when inventory last told of the product, by the clock of this database: an event or a
//! page counts from the beginning of the transaction that stores it. A fill deletes what nothing has told of since it began.
//! It cannot delete what is sold:
//!
//! - Inventory lists by id, each page by itself after the last id of the page before. A product that exists from the
//!   first page to the last is on one of them, and ids never change.
//! - A product that is created meanwhile may have an id of a page that was read already. We know of it by its event, which
//!   counts as telling; or we do not know of it yet, and there is nothing to delete.
//! - What was told of before the fill began existed before its first page was asked for.
//!
//! A product that was deleted never comes back, so it does not matter whether its event still arrives. Only an inventory
//! that was set back lists it again, and then the next [fill](super::fill) sells it again.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The most rows that are looked at in one statement.
const STEP: i64 = 10_000;

/// The time from which a fill counts that begins now.
///
/// # Errors
/// Those of the database.
pub(super) async fn begin(conn: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(conn).await
}

/// What [`delete`] did.
pub(super) struct Deleted {
    /// The last id it looked at; `None` where there is none left.
    pub(super) last_id: Option<i64>,
    /// How many products it deleted.
    pub(super) count: i64,
}

/// Deletes what nothing has told of since a complete fill `began`, among the next products after an id. Their versions stay,
/// so whatever inventory still has to tell of them is newer.
///
/// # Errors
/// Those of the database.
pub(super) async fn delete(conn: &mut PgConnection, after: i64, began: DateTime<Utc>) -> sqlx::Result<Deleted> {
    sqlx::query_as!(
        Deleted,
        r#"with looked_at as (
               select product_id
               from catalogue
               where product_id > $1
               order by product_id
               limit $2
           ), gone as (
               update catalogue
               set deleted = true, told_at = now()
               from looked_at
               where catalogue.product_id = looked_at.product_id
                 and not deleted
                 and told_at < $3
               returning catalogue.product_id
           )
           select (select max(product_id) from looked_at) as last_id, (select count(*) from gone) as "count!""#,
        after,
        STEP,
        began,
    )
    .fetch_one(conn)
    .await
}
