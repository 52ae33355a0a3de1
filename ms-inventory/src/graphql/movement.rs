//! The ledger, and what people write into it.

use ::graphql::Id;
use async_graphql::{Context, Enum, ID, InputObject, Object};
use chrono::{DateTime, Utc};

use super::error::Result;
use super::product::Product;
use super::{int, loader};
use crate::ledger::{self, Adjustment};

pub(super) struct Movement(pub(super) ledger::Movement);

/// One change of a product's stock. All of a product's movements together are what is on hand.
#[Object]
impl Movement {
    /// Its id. Later movements have greater ones.
    async fn id(&self) -> Id {
        Id(self.0.id)
    }

    /// The product whose stock changed.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// The product whose stock changed; null if it was deleted since.
    async fn product(&self, ctx: &Context<'_>) -> Result<Option<Product>> {
        loader::product(ctx, self.0.product_id).await
    }

    /// By how much: negative where stock went.
    async fn quantity(&self) -> i32 {
        int(self.0.quantity)
    }

    /// What kind of change it was.
    async fn reason(&self) -> MovementReason {
        self.0.reason.into()
    }

    /// What was said about it, such as the reason given to `adjustStock`. May be empty.
    async fn note(&self) -> &str {
        &self.0.note
    }

    /// Who caused it: an account's id, or the program that did it, such as `seed`.
    async fn actor(&self) -> &str {
        &self.0.actor
    }

    /// The order it was for, if there was one.
    async fn order_id(&self) -> Option<ID> {
        self.0.order_id.as_ref().map(ID::from)
    }

    /// When it was booked.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
}

/// What kind of change of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ledger::Reason")]
pub(super) enum MovementReason {
    /// It came with a new product.
    Received,
    /// A person adjusted it, or the product was deleted: that takes away what is left, and what comes back later.
    Adjusted,
    /// It was sold.
    Committed,
    /// It came back.
    Returned,
}

/// A change of stock.
#[derive(Debug, InputObject)]
pub(super) struct AdjustStockInput {
    /// The product.
    product_id: Id,
    /// By how much what is on hand changes: not 0, negative to take away.
    delta: i32,
    /// Why, in your own words, for the ledger, where it is the movement's note; at most 500 characters.
    reason: Option<String>,
    /// How many there are as far as you know: if there are more or fewer, nothing is changed and the refusal, a
    /// CONFLICT, tells the current levels. Leave it out to adjust whatever is there.
    expected_on_hand: Option<i32>,
    /// 1 to 255 characters that you make up for this adjustment, such as a UUID. Sent again with the same input, it
    /// changes nothing and gives the first answer again, so a request whose answer was lost can be repeated. With
    /// another input it is a CONFLICT. It is remembered for a day, and a refused adjustment does not use it up.
    idempotency_key: Option<String>,
}

impl From<AdjustStockInput> for Adjustment {
    fn from(input: AdjustStockInput) -> Self {
        Self {
            product_id: input.product_id.0,
            delta: input.delta.into(),
            note: input.reason.unwrap_or_default(),
            expected_on_hand: input.expected_on_hand.map(i64::from),
            idempotency_key: input.idempotency_key,
        }
    }
}
