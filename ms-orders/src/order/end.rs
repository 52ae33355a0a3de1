use ::events::OrderId;
use auth::Caller;
use database::Pool;
use messaging::{Fault, Trace};
use sqlx::PgConnection;

use super::{News, Order, Outcome, What, advance, count_settled, find, hours};
use crate::config::Shop;
use crate::status::Status;

/// What is done to an order by somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is cancelled, before it is paid.
    Cancel,
    /// Its payment is given back.
    Refund {
        /// Whether the goods come back and can be sold again.
        restock: bool,
    },
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancelOrder",
            Self::Refund { .. } => "refundOrder",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Refund { .. } => "refunded",
        }
    }

    fn restock(self) -> bool {
        matches!(self, Self::Refund { restock: true })
    }
}

/// Somebody wants an order to end.
#[derive(Debug, Clone)]
pub struct EndRequest {
    /// Who.
    pub caller: Caller,
    /// The order.
    pub order_id: OrderId,
    /// How.
    pub operation: Operation,
    /// Why, for people.
    pub reason: String,
    /// Names the request: the same key of the same user again is the same request again.
    pub idempotency_key: Option<String>,
    /// The trace it is made in.
    pub trace: Trace,
}

/// Why an order did not end.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// There is none of this id that the caller may see.
    #[error("there is no order {0}")]
    Unknown(String),
    /// It is in a status from which it cannot end so.
    #[error("order {order_id} is {status}: it cannot be {}", .operation.participle())]
    Refused {
        /// The order.
        order_id: String,
        /// What it is.
        status: Status,
        /// What was asked.
        operation: Operation,
    },
    /// The key was used for another request.
    #[error("this idempotency key was used for another request, on order {order_id}")]
    KeyReused {
        /// The order that request was about.
        order_id: String,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<sqlx::Error> for EndError {
    fn from(error: sqlx::Error) -> Self {
        Self::Fault(error.into())
    }
}

/// Cancels or refunds an order, and has the events that tell of it go out once the transaction is committed. A request
/// whose idempotency key was used for the same request before changes nothing, and gets the order as it is.
///
/// # Errors
/// [`EndError`]; then nothing has changed, and the key is not used up.
pub async fn end(pool: &Pool, request: &EndRequest, shop: &Shop) -> Result<Order, EndError> {
    let EndRequest { caller, order_id, operation, reason, trace, .. } = request;
    let (by, reason) = (caller.user_id, reason.clone());
    let what = match *operation {
        Operation::Cancel => What::Cancelled { by, reason },
        Operation::Refund { restock } => What::Refunded { by, reason, restock },
    };
    let news = News { order_id: order_id.clone(), what, message_id: None, trace: *trace };
    let mut tx = pool.begin().await?;
    if !find(&mut tx, order_id.as_str()).await?.is_some_and(|order| caller.may_see(order.user_id)) {
        return Err(EndError::Unknown(order_id.to_string()));
    }
    let outcomes = advance(&mut tx, &[news], shop.waits()).await?;
    // Whoever made the same request held the order's lock, and has committed.
    let first = first_request(&mut tx, request, shop).await?;
    if let Some(first) = &first
        && !first.is(request)
    {
        return Err(EndError::KeyReused { order_id: first.order_id.clone() });
    }
    match outcomes.first().unwrap_or(&Outcome::Unknown) {
        Outcome::Became(_) => remember(&mut tx, request, shop).await?,
        Outcome::Unchanged(_) if first.is_some() => (),
        Outcome::Unchanged(status) => {
            return Err(EndError::Refused { order_id: order_id.to_string(), status: *status, operation: *operation });
        }
        // Only what inventory says is given back.
        Outcome::Unknown | Outcome::GiveBack(_) => return Err(EndError::Unknown(order_id.to_string())),
    }
    let order = find(&mut tx, order_id.as_str()).await?;
    tx.commit().await?;
    count_settled(&outcomes);
    order.ok_or_else(|| EndError::Unknown(order_id.to_string()))
}

/// What was first asked under a key.
struct First {
    order_id: String,
    reason: String,
    restock: bool,
}

impl First {
    fn is(&self, request: &EndRequest) -> bool {
        self.order_id == request.order_id.as_str()
            && self.reason == request.reason
            && self.restock == request.operation.restock()
    }
}

async fn first_request(conn: &mut PgConnection, request: &EndRequest, shop: &Shop) -> sqlx::Result<Option<First>> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    sqlx::query_as!(
        First,
        "select order_id, reason, restock
         from requests
         where user_id = $4 and operation = $1 and idempotency_key = $2
           and created_at > now() - make_interval(hours => $3)",
        request.operation.name(),
        key,
        hours(shop.idempotency_ttl_hours),
        request.caller.user_id,
    )
    .fetch_optional(conn)
    .await
}

async fn remember(conn: &mut PgConnection, request: &EndRequest, shop: &Shop) -> Result<(), EndError> {
    let Some(key) = &request.idempotency_key else { return Ok(()) };
    let remembered = sqlx::query!(
        "insert into requests (operation, idempotency_key, order_id, reason, restock, user_id)
         values ($1, $2, $3, $4, $5, $7)
         on conflict (user_id, operation, idempotency_key) do update
         set order_id = excluded.order_id,
             reason = excluded.reason,
             restock = excluded.restock,
             created_at = excluded.created_at
         where requests.created_at <= now() - make_interval(hours => $6)",
        request.operation.name(),
        key,
        request.order_id.as_str(),
        request.reason,
        request.operation.restock(),
        hours(shop.idempotency_ttl_hours),
        request.caller.user_id,
    )
    .execute(&mut *conn)
    .await?;
    if remembered.rows_affected() == 0 {
        // Somebody used it for another order at the same time: for this one he would hold its lock.
        let order_id = first_request(conn, request, shop).await?.map(|first| first.order_id).unwrap_or_default();
        return Err(EndError::KeyReused { order_id });
    }
    Ok(())
}

/// Forgets what was asked under idempotency keys older than this, the oldest first; tells whether there may be more.
///
/// # Errors
/// Those of the database.
pub async fn forget_requests(conn: &mut PgConnection, ttl_hours: u32) -> sqlx::Result<bool> {
    let forgotten = sqlx::query!(
        "with old as (
             select user_id, operation, idempotency_key
             from requests
             where created_at < now() - make_interval(hours => $1)
             order by created_at
             limit $2
             for update skip locked
         )
         delete from requests
         using old
         where requests.user_id = old.user_id
           and requests.operation = old.operation
           and requests.idempotency_key = old.idempotency_key",
        hours(ttl_hours),
        database::DELETED_AT_ONCE,
    )
    .execute(conn)
    .await?;
    Ok(forgotten.rows_affected() == database::DELETED_AT_ONCE as u64)
}
