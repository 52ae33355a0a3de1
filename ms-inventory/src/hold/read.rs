//! Holds as people look at them.

use ::events::inventory::Shortage;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::Status;
use crate::stock::Lines;

/// What is, was or never came to be held for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The order.
    pub order_id: String,
    /// What became of it.
    pub status: Status,
    /// What the order asks for; nothing where its cancellation came first.
    pub lines: Lines,
    /// Until when it is held, or was to be; absent from a rejected order.
    pub expires_at: Option<DateTime<Utc>>,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// The products that were short.
    pub shortages: Vec<Shortage>,
    /// The products whose goods came back and were written off, because they had been deleted.
    pub written_off: Vec<i64>,
    /// When the order was answered.
    pub created_at: DateTime<Utc>,
    /// When a hold ended.
    pub settled_at: Option<DateTime<Utc>>,
}

struct Row {
    order_id: String,
    status: Status,
    product_ids: Option<Vec<i64>>,
    quantities: Option<Vec<i64>>,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    shortages: Option<Json<Vec<Shortage>>>,
    written_off: Option<Vec<i64>>,
    created_at: DateTime<Utc>,
    settled_at: Option<DateTime<Utc>>,
}

impl From<Row> for Hold {
    fn from(row: Row) -> Self {
        Self {
            order_id: row.order_id,
            status: row.status,
            lines: Lines::from_columns(&row.product_ids.unwrap_or_default(), &row.quantities.unwrap_or_default()),
            expires_at: row.expires_at,
            reason: row.reason,
            shortages: row.shortages.map(|shortages| shortages.0).unwrap_or_default(),
            written_off: row.written_off.unwrap_or_default(),
            created_at: row.created_at,
            settled_at: row.settled_at,
        }
    }
}

/// The hold of an order.
///
/// # Errors
/// Those of the database.
pub async fn find(conn: &mut PgConnection, order_id: &str) -> sqlx::Result<Option<Hold>> {
    let row = sqlx::query_as!(
        Row,
        r#"select order_id, status as "status: Status", product_ids, quantities, expires_at, reason,
             shortages as "shortages: Json<Vec<Shortage>>", written_off, created_at, settled_at
           from holds
           where order_id = $1"#,
        order_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Hold::from))
}

/// Which holds to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Those of orders for this product.
    pub product_id: Option<i64>,
    /// Those in this state.
    pub status: Option<Status>,
}

/// Holds, the newest first; `after` is the time and the order id of the hold they come after.
///
/// # Errors
/// Those of the database.
pub async fn page(
    conn: &mut PgConnection,
    filter: Filter,
    after: Option<&(DateTime<Utc>, String)>,
    limit: i64,
) -> sqlx::Result<Vec<Hold>> {
    let (after_time, after_order) = after.map(|(time, order)| (*time, order.as_str())).unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"select order_id, status as "status: Status", product_ids, quantities, expires_at, reason,
             shortages as "shortages: Json<Vec<Shortage>>", written_off, created_at, settled_at
           from holds
           where ($1::bigint is null or $1 = any(product_ids))
             and ($2::hold_status is null or status = $2)
             and ($4::text is null or (created_at, order_id) < ($3::timestamptz, $4))
           order by created_at desc, order_id desc
           limit $5"#,
        filter.product_id,
        filter.status as Option<Status>,
        after_time,
        after_order,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Hold::from).collect())
}
