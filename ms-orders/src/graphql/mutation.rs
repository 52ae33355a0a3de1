use async_graphql::{Context, ID, InputObject, Object, Result};
use auth::guard::caller;
use database::Pool;
use events::OrderId;
use graphql::{CHANGE_COST, Refusal, text};
use messaging::Trace;
use messaging::outbox::Relay;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::error::{not_ended, not_placed};
use super::types::{ItemInput, Order, basket};
use crate::config::Shop;
use crate::order::{self, EndError, EndRequest, NewOrder, Operation};
use crate::till::Till;

/// The most characters of an idempotency key and of a payment reference.
const MAX_TEXT_CHARS: usize = 255;

/// The most characters of the reason to cancel or refund.
const MAX_REASON_CHARS: usize = 500;

/// What can be changed.
#[derive(Debug)]
pub struct Mutation;

/// An order to be placed.
#[derive(Debug, InputObject)]
struct CreateOrderInput {
    /// What it is for: 1 to 1 000 items. Items of the same product count as their sum.
    items: Vec<ItemInput>,
    /// A text of the client's own, 1 to 255 characters, that names this request among those of the same account. The same
    /// key with the same order again gets the order that was placed the first time, so a request whose answer was lost can
    /// be sent again; with another order it is a CONFLICT. Without a key, each request places an order.
    idempotency_key: Option<String>,
    /// What the payment is to be made with, up to 255 characters. The provider is simulated: it declines what begins with
    /// `decline`, is slow with what begins with `slow`, and fails now and then with what begins with `flaky`.
    payment_reference: Option<String>,
    /// The total the customer was shown. If it costs something else now, nothing is ordered: CONFLICT, with the new amounts
    /// in `extensions.quote`.
    expected_total: Option<Decimal>,
}

/// What can be changed.
#[Object]
impl Mutation {
    /// Places an order at the catalogue's prices and answers at once with it, PENDING. A moment later, or as soon as
    /// inventory is back, it is CONFIRMED, its stock held, or CANCELLED. Once confirmed it is paid, and COMPLETED.
    ///
    /// Refused as NOT_FOUND, with `extensions.productIds`, where products are not sold; as INVALID where a quantity is
    /// not between 1 and 1 000 000, or the total is beyond 9 999 999 999.99; as RATE_LIMITED, with
    /// `extensions.retryAfterSeconds`, where the account has too many orders, or units in them, PENDING and CONFIRMED, and
    /// as CONFLICT where this order alone asks for more units: `extensions` tells the `limit` and how much is `unpaid`. An
    /// ADMIN has no such limit. As CONFLICT also where others change the same for so long that it was not placed: try again.
    /// For everybody who has signed in.
    #[graphql(guard = "auth::guard::user", complexity = "CHANGE_COST + child_complexity")]
    async fn create_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order.")] input: CreateOrderInput,
    ) -> Result<Order> {
        let new = NewOrder {
            id: order::new_id(Uuid::now_v7())?,
            caller: caller(ctx)?,
            basket: basket(&input.items)?,
            idempotency_key: input.idempotency_key.map(idempotency_key).transpose()?,
            payment_reference: input.payment_reference.map(payment_reference).transpose()?,
            expected_total: input.expected_total,
            trace: *ctx.data::<Trace>()?,
        };
        let shop = ctx.data::<Shop>()?;
        Ok(Order(ctx.data::<Till>()?.place(new).await.map_err(|error| not_placed(error, shop))?))
    }

    /// Cancels an order that is PENDING or CONFIRMED: its stock is released, and a payment that is on its way is given
    /// back. CONFLICT, with `extensions.status`, if it is anything else by now; NOT_FOUND if there is none, or it is
    /// somebody else's and the caller no ADMIN.
    #[graphql(guard = "auth::guard::user", complexity = "CHANGE_COST + child_complexity")]
    async fn cancel_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's id.")] id: ID,
        #[graphql(desc = "Why, for people: 1 to 500 characters.")] reason: String,
        #[graphql(desc = "Names this request, as in createOrder: again with the same key it gets the same answer.")]
        idempotency_key: Option<String>,
    ) -> Result<Order> {
        end(ctx, id, Operation::Cancel, reason, idempotency_key).await
    }

    /// Gives the payment of a COMPLETED order back, all of it. CONFLICT, with `extensions.status`, if the order is anything
    /// else; NOT_FOUND if there is none. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn refund_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's id.")] id: ID,
        #[graphql(desc = "Why, for people: 1 to 500 characters.")] reason: String,
        #[graphql(desc = "Whether the goods come back and can be sold again.", default_with = "Some(true)")]
        restock: Option<bool>,
        #[graphql(desc = "Names this request, as in createOrder: again with the same key it gets the same answer.")]
        idempotency_key: Option<String>,
    ) -> Result<Order> {
        end(ctx, id, Operation::Refund { restock: restock.unwrap_or(true) }, reason, idempotency_key).await
    }
}

async fn end(ctx: &Context<'_>, id: ID, operation: Operation, reason: String, key: Option<String>) -> Result<Order> {
    text("reason", &reason, MAX_REASON_CHARS)?;
    if reason.trim().is_empty() {
        return Err(Refusal::invalid("reason is empty: say why").with("field", "reason").into());
    }
    let unknown = |_| not_ended(EndError::Unknown(id.to_string()));
    let request = EndRequest {
        caller: caller(ctx)?,
        order_id: OrderId::try_from(id.to_string()).map_err(unknown)?,
        operation,
        reason,
        idempotency_key: key.map(idempotency_key).transpose()?,
        trace: *ctx.data::<Trace>()?,
    };
    let order = order::end(ctx.data::<Pool>()?, &request, ctx.data::<Shop>()?).await.map_err(not_ended)?;
    ctx.data::<Relay>()?.wake();
    Ok(Order(order))
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
