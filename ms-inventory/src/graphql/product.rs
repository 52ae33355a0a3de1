//! Products: what is shown of them, what is asked for, and what people write about them.

use ::graphql::{Id, Refusal, text};
use async_graphql::{Context, Enum, InputObject, Object};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::connection::connection;
use super::error::{Result, invalid};
use super::int;
use super::price::{Price, two_decimals};
use crate::product::{self, Draft, Edit, Form, Invalid};

/// The longest search, in characters.
const MAX_SEARCH_CHARS: usize = 200;

/// The most entries of a list in a filter.
const MAX_FILTER_ENTRIES: usize = 1_000;

pub(super) struct Product(pub(super) product::Product);

/// A product of the catalogue, and how much there is of it.
#[Object]
impl Product {
    /// Its id, for ever.
    async fn id(&self) -> Id {
        Id(self.0.id)
    }

    /// Its stock keeping unit. No two products have the same.
    async fn sku(&self) -> &str {
        &self.0.sku
    }

    /// What it is called.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What there is to say about it. May be empty.
    async fn description(&self) -> &str {
        &self.0.description
    }

    /// Its price in the shop's currency, with two decimals, as text: `"39.90"`.
    async fn price(&self) -> Decimal {
        two_decimals(self.0.price)
    }

    /// How many are in the warehouse.
    async fn on_hand(&self) -> i32 {
        int(self.0.on_hand)
    }

    /// How many of those on hand are held for orders.
    async fn reserved(&self) -> i32 {
        int(self.0.reserved)
    }

    /// How many can be sold: those on hand that are not reserved.
    async fn available(&self) -> i32 {
        int(self.0.level().available())
    }

    /// Grows by one with every edit, and does not change with stock. `updateProduct` expects it.
    async fn version(&self) -> i32 {
        int(self.0.version)
    }

    /// When it came into the catalogue.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it was last edited. It does not change with stock.
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
}

/// Which products to list. What is left out is not asked; what is given must hold together.
#[derive(Debug, InputObject)]
pub(super) struct ProductFilter {
    /// Part of the name or of the SKU, in upper or lower case; at most 200 characters.
    search: Option<String>,
    /// One of these SKUs, exactly; at most 1000.
    skus: Option<Vec<String>>,
    /// One of these ids; at most 1000.
    ids: Option<Vec<Id>>,
    /// At least so many can be sold.
    min_available: Option<i32>,
    /// At least this price.
    price_min: Option<Price>,
    /// At most this price.
    price_max: Option<Price>,
}

impl ProductFilter {
    pub(super) fn parse(self) -> Result<product::Filter> {
        if let Some(search) = &self.search {
            text("search", search, MAX_SEARCH_CHARS)?;
        }
        bounded("skus", self.skus.as_deref())?;
        bounded("ids", self.ids.as_deref())?;
        let price = |field, price: Option<Price>| {
            let amount = price.map(|price| price.decimal(field)).transpose();
            amount.map_err(|wrong| invalid(vec![wrong]))
        };
        Ok(product::Filter {
            search: self.search,
            skus: self.skus,
            ids: self.ids.map(|ids| ids.into_iter().map(|id| id.0).collect()),
            min_available: self.min_available.map(i64::from),
            price_min: price("priceMin", self.price_min)?,
            price_max: price("priceMax", self.price_max)?,
        })
    }
}

fn bounded<T>(field: &'static str, entries: Option<&[T]>) -> std::result::Result<(), Refusal> {
    if entries.is_some_and(|entries| entries.len() > MAX_FILTER_ENTRIES) {
        let message = format!("{field} has more than {MAX_FILTER_ENTRIES} entries");
        return Err(Refusal::invalid(message).with("field", field));
    }
    Ok(())
}

/// In which order products are listed. Those that are equal by the field come by their ids.
#[derive(Debug, InputObject)]
pub(super) struct ProductOrder {
    /// By what.
    #[graphql(default_with = "ProductOrderField::Id")]
    field: ProductOrderField,
    /// The smallest or the greatest first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

impl From<ProductOrder> for product::Order {
    fn from(order: ProductOrder) -> Self {
        Self { field: order.field.into(), descending: order.direction == OrderDirection::Desc }
    }
}

/// What products can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "product::Field")]
pub(super) enum ProductOrderField {
    /// The order in which they came into the catalogue.
    Id,
    /// The name, by the database's collation.
    Name,
    /// The SKU, by the database's collation.
    Sku,
    /// The price.
    Price,
    /// The last edit.
    UpdatedAt,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum OrderDirection {
    /// The smallest, the first in the alphabet, the oldest.
    Asc,
    /// The greatest, the last in the alphabet, the newest.
    Desc,
}

/// What the connection of products has beside its page.
pub(super) struct ProductTotals {
    pub(super) filter: product::Filter,
}

#[Object]
impl ProductTotals {
    /// How many products match the filter on all pages together. They are counted only if this is asked for.
    #[graphql(complexity = "100")]
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut conn = connection(ctx).await?;
        Ok(int(product::count(&mut conn, &self.filter).await?))
    }
}

/// A product to be added.
#[derive(Debug, InputObject)]
pub(super) struct ProductInput {
    /// 1 to 64 characters without white space at the ends. No other product may have it.
    sku: String,
    /// 1 to 200 characters without white space at the ends.
    name: String,
    /// At most 10000 characters. Empty if left out.
    description: Option<String>,
    /// From 0 to 9999999999.99 with at most two decimals, best written as text: `"39.90"`. It is never rounded.
    price: Price,
    /// How many there are to begin with, 0 to 1000000000; 0 if left out. They are booked as received.
    on_hand: Option<i32>,
}

impl ProductInput {
    pub(super) fn draft(self) -> std::result::Result<Draft, Vec<Invalid>> {
        let price = self.price.decimal("price");
        let form = Form {
            sku: Some(self.sku),
            name: Some(self.name),
            description: self.description,
            // Zero stands in for what cannot be read, so that the rest is checked as well.
            price: Some(price.as_ref().copied().unwrap_or_default()),
        };
        let draft = Draft::of(form, self.on_hand.unwrap_or_default().into());
        match price {
            Ok(_) => draft,
            Err(unreadable) => {
                let mut wrong = draft.err().unwrap_or_default();
                wrong.push(unreadable);
                Err(wrong)
            }
        }
    }
}

/// An edit of a product. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub(super) struct UpdateProductInput {
    /// The version its editor saw: if it has another by now, the edit is refused with CONFLICT.
    pub(super) expected_version: i32,
    /// 1 to 64 characters without white space at the ends. No other product may have it.
    sku: Option<String>,
    /// 1 to 200 characters without white space at the ends.
    name: Option<String>,
    /// At most 10000 characters.
    description: Option<String>,
    /// From 0 to 9999999999.99 with at most two decimals, best written as text: `"39.90"`. It is never rounded.
    price: Option<Price>,
}

impl UpdateProductInput {
    pub(super) fn edit(self) -> std::result::Result<Edit, Vec<Invalid>> {
        let price = self.price.map(|price| price.decimal("price")).transpose();
        Edit::of(Form {
            sku: self.sku,
            name: self.name,
            description: self.description,
            price: price.map_err(|unreadable| vec![unreadable])?,
        })
    }
}
