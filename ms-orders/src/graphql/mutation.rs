use async_graphql::{Context, InputObject, Object, Result};
use graphql::{Refusal, text};
use messaging::Trace;
use uuid::Uuid;

use super::error::not_placed;
use super::types::{ItemInput, Order, basket};
use crate::config::Shop;
use crate::order::{self, NewOrder};
use crate::till::Till;

/// The most characters of an idempotency key and of a payment reference.
const MAX_TEXT_CHARS: usize = 255;

/// What a change costs among the complexity of a request: a request holds a few dozen.
const CHANGE_COST: usize = 500;

/// What can be changed.
#[derive(Debug)]
pub struct Mutation;

/// An order to be placed.
#[derive(Debug, InputObject)]
struct CreateOrderInput {
    /// What it is for: 1 to 1 000 items. Items of the same product count as their sum.
    items: Vec<ItemInput>,
    /// A text of the client's own, 1 to 255 characters, that names this request. The same key with the same order
    /// again gets the order that was placed the first time, so a request whose answer was lost can be sent again;
    /// with another order it is a CONFLICT. Without a key, each request places an order.
    idempotency_key: Option<String>,
    /// What the payment is to be made with, up to 255 characters.
    payment_reference: Option<String>,
}

/// What can be changed.
#[Object]
impl Mutation {
    /// Places an order at the catalogue's prices and answers at once with it, PENDING. A moment later, or as soon as
    /// inventory is back, it is CONFIRMED, its stock held, or CANCELLED.
    ///
    /// Refused as NOT_FOUND, with `extensions.productIds`, where products are not sold; as INVALID where a quantity is
    /// not between 1 and 1 000 000, or the total is beyond 9 999 999 999.99.
    #[graphql(complexity = "CHANGE_COST + child_complexity")]
    async fn create_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order.")] input: CreateOrderInput,
    ) -> Result<Order> {
        let shop = ctx.data::<Shop>()?;
        let new = NewOrder {
            id: order::new_id(Uuid::now_v7())?,
            basket: basket(&input.items)?,
            idempotency_key: input.idempotency_key.map(idempotency_key).transpose()?,
            payment_reference: input.payment_reference.map(payment_reference).transpose()?,
            fee_percent: shop.fee_percent,
            reask_after_seconds: shop.reask_after_seconds,
            trace: *ctx.data::<Trace>()?,
        };
        Ok(Order(ctx.data::<Till>()?.place(new).await.map_err(not_placed)?))
    }
}

fn idempotency_key(key: String) -> Result<String, Refusal> {
    const FIELD: &str = "idempotencyKey";
    if key.is_empty() {
        return Err(Refusal::invalid("idempotencyKey is empty: leave it out instead").with("field", FIELD));
    }
    text(FIELD, &key, MAX_TEXT_CHARS)?;
    Ok(key)
}

fn payment_reference(reference: String) -> Result<String, Refusal> {
    text("paymentReference", &reference, MAX_TEXT_CHARS)?;
    Ok(reference)
}
