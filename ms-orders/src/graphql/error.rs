use async_graphql::{Error, Value};
use graphql::Refusal;

use crate::checkout::Refused;
use crate::order::PlaceError;

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
        PlaceError::Fault(fault) => Error::new_with_source(anyhow::Error::from(fault)),
    }
}
