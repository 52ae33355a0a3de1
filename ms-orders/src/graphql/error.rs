use std::sync::Arc;

use async_graphql::{Error, Value, value};
use graphql::Refusal;
use messaging::Fault;

use crate::checkout::Quote;
use crate::checkout::Refused;
use crate::config::Shop;
use crate::order::{EndError, OverLimit, PlaceError};

pub(super) fn refused(refused: &Refused) -> Refusal {
    let message = refused.to_string();
    match refused {
        Refused::Empty | Refused::TooManyLines => Refusal::invalid(message).with("field", "items"),
        Refused::Quantity { product_id } => {
            Refusal::invalid(message).with("field", "quantity").with("productId", product_id.to_string())
        }
        Refused::UnknownProducts(ids) => {
            let ids = ids.iter().map(|id| Value::from(id.to_string())).collect();
            Refusal::not_found(message).with("productIds", Value::List(ids))
        }
        Refused::TooExpensive => Refusal::invalid(message).with("field", "items"),
    }
}

pub(super) fn not_placed(error: PlaceError, shop: &Shop) -> Error {
    match error {
        PlaceError::Refused(reason) => refused(&reason).into(),
        PlaceError::KeyReused { ref order_id } => {
            let refusal = Refusal::conflict(error.to_string());
            refusal.with("field", "idempotencyKey").with("orderId", order_id.clone()).into()
        }
        PlaceError::PriceChanged(ref quote) => {
            let message = format!("{error}: look at the new quote and order again");
            Refusal::conflict(message).with("field", "expectedTotal").with("quote", quoted(quote)).into()
        }
        PlaceError::OverLimit(over) => over_limit(over, shop).into(),
        PlaceError::AccountBusy => Refusal::conflict(format!("{error}; try again")).into(),
        PlaceError::Fault(fault) => failed(fault),
    }
}

fn over_limit(over: OverLimit, shop: &Shop) -> Refusal {
    let message = over.to_string();
    match over {
        OverLimit::Units { limit, unpaid, asked } if asked > limit => {
            Refusal::conflict(message).with("constraint", "unpaid_units").with("limit", limit).with("unpaid", unpaid)
        }
        OverLimit::Units { limit, unpaid, .. } => until_paid(message, "unpaid_units", limit, unpaid, shop),
        OverLimit::Orders { limit, unpaid } => until_paid(message, "unpaid_orders", limit, unpaid, shop),
    }
}

/// By then what is held now is paid, or not held any more.
fn until_paid(message: String, constraint: &'static str, limit: i64, unpaid: i64, shop: &Shop) -> Refusal {
    const MAX_SECONDS: u32 = 60;
    let seconds = shop.payment_delay_seconds.clamp(1, MAX_SECONDS);
    Refusal::rate_limited(message)
        .with("constraint", constraint)
        .with("limit", limit)
        .with("unpaid", unpaid)
        .with("retryAfterSeconds", seconds)
}

/// What the type `Quote` says of it in short.
fn quoted(quote: &Quote) -> Value {
    let amount = |amount: rust_decimal::Decimal| format!("{amount:.2}");
    value!({
        "subtotal": (amount(quote.subtotal)),
        "fee": (amount(quote.fee)),
        "total": (amount(quote.total)),
    })
}

pub(super) fn not_ended(error: EndError) -> Error {
    let message = error.to_string();
    match error {
        EndError::Unknown(_) => Refusal::not_found(message).with("field", "id").into(),
        EndError::Refused { status, .. } => Refusal::conflict(message).with("status", status.to_string()).into(),
        EndError::KeyReused { order_id } => {
            Refusal::conflict(message).with("field", "idempotencyKey").with("orderId", order_id).into()
        }
        EndError::Fault(fault) => failed(fault.into()),
    }
}

/// A fault of the database, which may be that others change the same.
fn failed(fault: Arc<Fault>) -> Error {
    let error = match &*fault {
        Fault::TimedOut(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "a statement took too long; its client is told to try again");
            return Refusal::conflict("the database took too long; try again").into();
        }
        Fault::Server(error) | Fault::Locked(error) | Fault::Sticky(error) => error,
    };
    let code = error.downcast_ref().and_then(sqlx::Error::as_database_error).and_then(sqlx::error::DatabaseError::code);
    match code.and_then(|code| Refusal::of_sqlstate(&code)) {
        Some(refusal) => refusal.into(),
        None => Error::new_with_source(anyhow::Error::from(fault)),
    }
}
