//! What is held for orders.

use ::events::Item;
use ::events::inventory;
use ::graphql::Id;
use async_graphql::{Context, Enum, ID, Object};
use chrono::{DateTime, Utc};

use super::error::Result;
use super::product::Product;
use super::{int, loader};
use crate::hold::{self, read};

/// How many lines an order counts for in a request's complexity: most have less than ten, one in a page may have 1 000.
const LINES_COST: usize = 50;

pub(super) struct Hold(pub(super) read::Hold);

/// The answer an order got: what is held for it, was, or why nothing came to be.
#[Object]
impl Hold {
    /// The order.
    async fn order_id(&self) -> ID {
        self.0.order_id.as_str().into()
    }

    /// What became of it.
    async fn status(&self) -> HoldStatus {
        self.0.status.into()
    }

    /// What the order asks for, one entry a product. Empty where its cancellation came before the order itself.
    #[graphql(complexity = "1 + LINES_COST * child_complexity")]
    async fn items(&self) -> Vec<HoldItem> {
        self.0.lines.items().iter().copied().map(HoldItem).collect()
    }

    /// Until when it is held, or was to be. Null if it was rejected.
    async fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.0.expires_at
    }

    /// Why it was rejected. Null if it was not.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The products of which there was not enough. Empty unless that is why it was rejected.
    #[graphql(complexity = "1 + LINES_COST * child_complexity")]
    async fn shortages(&self) -> Vec<Shortage> {
        self.0.shortages.iter().copied().map(Shortage).collect()
    }

    /// How it stands, in one sentence for people: since when, why, and which goods were written off when they came back,
    /// because their product had been deleted.
    async fn explain(&self) -> String {
        hold::explain(&self.0)
    }

    /// When the order was answered.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it was sold, came back, was cancelled or ran out. Null as long as it is held.
    async fn settled_at(&self) -> Option<DateTime<Utc>> {
        self.0.settled_at
    }
}

/// What became of an order's stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "hold::Status")]
pub(super) enum HoldStatus {
    /// It is reserved, until its time runs out.
    Held,
    /// It was sold.
    Committed,
    /// The order was cancelled.
    Released,
    /// Its time ran out.
    Expired,
    /// It was sold, the order refunded, and the goods came back.
    Returned,
    /// Nothing was ever held.
    Rejected,
}

pub(super) struct HoldItem(Item);

/// So many of one product.
#[Object]
impl HoldItem {
    /// The product.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// How many of it. What a rejected order asked for may be absurd: beyond 32 bits the nearest number is shown.
    async fn quantity(&self) -> i32 {
        int(self.0.quantity)
    }

    /// The product; null if it was deleted since, or never existed.
    async fn product(&self, ctx: &Context<'_>) -> Result<Option<Product>> {
        loader::product(ctx, self.0.product_id).await
    }
}

pub(super) struct Shortage(inventory::Shortage);

/// A product of which there was not enough.
#[Object]
impl Shortage {
    /// The product.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// How many the order asked for. Beyond 32 bits the nearest number is shown.
    async fn requested(&self) -> i32 {
        int(self.0.requested)
    }

    /// How many could be sold at that moment; 0 where the product did not exist.
    async fn available(&self) -> i32 {
        int(self.0.available)
    }
}
