//! Who changed which product, and to what.

use ::graphql::Id;
use async_graphql::{Enum, Object};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::int;
use super::price::two_decimals;
use crate::product;

pub(super) struct ProductEdit(pub(super) product::ProductEdit);

/// A product after somebody changed it.
#[Object]
impl ProductEdit {
    /// The product.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// What was done.
    async fn change(&self) -> ProductChange {
        self.0.change.into()
    }

    /// Its version since.
    async fn version(&self) -> i32 {
        int(self.0.version)
    }

    /// Its SKU since.
    async fn sku(&self) -> &str {
        &self.0.sku
    }

    /// Its name since.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// Its price since.
    async fn price(&self) -> Decimal {
        two_decimals(self.0.price)
    }

    /// Who did it: an account's id, or the program that did it, such as `seed`.
    async fn actor(&self) -> &str {
        &self.0.actor
    }

    /// The trace it was done in, as 32 hexadecimal digits: what to look for in the logs.
    async fn trace_id(&self) -> &str {
        &self.0.trace_id
    }

    /// When.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }
}

/// What can be done to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "product::Change")]
pub(super) enum ProductChange {
    /// It came into the catalogue.
    Created,
    /// It was edited.
    Edited,
    /// It was taken out of the catalogue.
    Deleted,
}
