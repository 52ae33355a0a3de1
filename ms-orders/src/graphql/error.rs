use async_graphql::{Error, Value, value};
use graphql::Refusal;
use messaging::Fault;

use crate::checkout::Quote;
use crate::checkout::Refused;
use crate::order::{EndError, PlaceError};

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

pub(super) fn not_placed(error: PlaceError) -> Error {
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
        PlaceError::Fault(fault) => failed(fault),
    }
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
        EndError::Fault(fault) => failed(fault),
    }
}

/// A fault of the database, which may be that others change the same.
fn failed(fault: Fault) -> Error {
    let (Fault::Server(error) | Fault::TimedOut(error) | Fault::Sticky(error)) = &fault;
    let code = error.downcast_ref().and_then(sqlx::Error::as_database_error).and_then(sqlx::error::DatabaseError::code);
    match code.and_then(|code| Refusal::of_sqlstate(&code)) {
        Some(refusal) => refusal.into(),
        None => Error::new_with_source(anyhow::Error::from(fault)),
    }
}
