use ::events::orders::OrderCreated;
use ::events::{Item, OrderId};
use messaging::{Fault, Outgoing, Trace, outbox};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{Order, Shortage, lines, orders};
use crate::catalogue;
use crate::checkout::{self, Basket, Quote};
use crate::status::Status;

/// The cause of an order's first step.
const CAUSE: &str = "createOrder";

/// An order to be placed.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Its id, should it be new.
    pub id: OrderId,
    /// What it is for.
    pub basket: Basket,
    /// Names the request: the same key again is the same order again.
    pub idempotency_key: Option<String>,
    /// What its payment is to be made with.
    pub payment_reference: Option<String>,
    /// The fee, in per cent.
    pub fee_percent: Decimal,
    /// How long inventory has to answer before it is asked again, in seconds.
    pub reask_after_seconds: u32,
    /// The trace it is placed in.
    pub trace: Trace,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be priced.
    #[error(transparent)]
    Refused(#[from] checkout::Refused),
    /// The key was used for another order.
    #[error("this idempotency key was used for another order")]
    KeyReused {
        /// The order it was used for.
        order_id: String,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<sqlx::Error> for PlaceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Fault(error.into())
    }
}

/// Places an order, and has its event go out once the transaction is committed. With an idempotency key that was used
/// for the same order before, it is that order, whatever the prices are now.
///
/// # Errors
/// [`PlaceError`].
pub async fn place(conn: &mut PgConnection, new: &NewOrder) -> Result<Order, PlaceError> {
    if let Some(placed) = placed_before(conn, new).await? {
        return Ok(placed);
    }
    let sold = catalogue::sold(conn, &new.basket.product_ids()).await?;
    let quote = checkout::quote(&new.basket, sold, new.fee_percent)?;
    let Some(order) = insert(conn, new, &quote).await? else {
        // Somebody with the same key was faster, and has committed: the insert waited for that.
        let placed = placed_before(conn, new).await?;
        return placed.ok_or_else(|| Fault::Sticky(anyhow::anyhow!("a key without an order")).into());
    };
    insert_lines(conn, &order.id, &quote).await?;
    let event = OrderCreated { order_id: new.id.clone(), items: new.basket.items() };
    let message = Outgoing::of(&event, new.trace).map_err(Fault::from)?;
    insert_step(conn, &order, &message, new.trace).await?;
    outbox::enqueue(conn, &[message]).await?;
    Ok(order)
}

async fn placed_before(conn: &mut PgConnection, new: &NewOrder) -> Result<Option<Order>, PlaceError> {
    let Some(key) = &new.idempotency_key else {
        return Ok(None);
    };
    let Some(order) = orders!("where idempotency_key = $1", key).fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    let lines = lines(conn, std::slice::from_ref(&order.id)).await?;
    let items = lines.iter().map(|line| Item { product_id: line.product_id, quantity: line.quantity });
    if items.eq(new.basket.items()) && order.payment_reference == new.payment_reference {
        Ok(Some(order))
    } else {
        Err(PlaceError::KeyReused { order_id: order.id })
    }
}

async fn insert(conn: &mut PgConnection, new: &NewOrder, quote: &Quote) -> sqlx::Result<Option<Order>> {
    sqlx::query_as!(
        Order,
        r#"insert into orders (id, idempotency_key, payment_reference, subtotal, fee, total, next_ask_at)
           values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
           on conflict (idempotency_key) do nothing
           returning id, status as "status: Status", subtotal, fee, total, payment_reference, expires_at, reason,
                     shortages as "shortages: Json<Vec<Shortage>>", created_at, updated_at"#,
        new.id.as_str(),
        new.idempotency_key.as_deref(),
        new.payment_reference.as_deref(),
        quote.subtotal,
        quote.fee,
        quote.total,
        f64::from(new.reask_after_seconds),
    )
    .fetch_optional(conn)
    .await
}

async fn insert_lines(conn: &mut PgConnection, order_id: &str, quote: &Quote) -> sqlx::Result<()> {
    macro_rules! column {
        ($get:expr) => {
            &quote.lines.iter().map($get).collect::<Vec<_>>()
        };
    }
    sqlx::query!(
        "insert into order_lines (order_id, product_id, sku, name, quantity, unit_price, catalogue_version)
         select $1, *
         from unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::numeric[], $7::bigint[])",
        order_id,
        column!(|line| line.product.product_id),
        column!(|line| line.product.sku.as_str()) as &[&str],
        column!(|line| line.product.name.as_str()) as &[&str],
        column!(|line| line.quantity),
        column!(|line| line.product.price),
        column!(|line| line.product.version),
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_step(conn: &mut PgConnection, order: &Order, message: &Outgoing, trace: Trace) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into order_steps (order_id, status, cause, message_id, trace_id)
         values ($1, $2, $3, $4, $5)",
        order.id,
        order.status as Status,
        CAUSE,
        message.message_id.to_string(),
        trace.to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
