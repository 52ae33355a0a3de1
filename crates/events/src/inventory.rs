//! Events on the exchange `inventory`: what happened to stock and to products.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::parse::{ParseError, parse_as, tag};
use crate::{Event, Item, OrderId};

/// The exchange these events are published to.
pub const EXCHANGE: &str = "inventory";

/// The `reason` of a rejection begins with exactly this when stock is what is missing.
pub const INSUFFICIENT_STOCK: &str = "Insufficient stock";

/// All lines of the order are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct StockReserved {
    /// The order.
    pub order_id: OrderId,
    /// What is held, one line a product.
    pub items: Vec<Item>,
    /// Until when it is held; absent from events of other publishers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// Nothing of the order is held, nor will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct StockRejected {
    /// The order.
    pub order_id: OrderId,
    /// Why, for people; see [`INSUFFICIENT_STOCK`].
    pub reason: String,
    /// The products that were short, where that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
}

/// One product of which there was not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The product.
    pub product_id: i64,
    /// How many the order asked for.
    pub requested: i64,
    /// How many could be sold at that moment; 0 where the product does not exist.
    pub available: i64,
}

/// What was held for the order can be sold to others again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct StockReleased {
    /// The order.
    pub order_id: OrderId,
    /// What was held.
    pub items: Vec<Item>,
    /// Why it is not any more.
    pub cause: ReleaseCause,
    /// Those of the items that came back and are not for sale, because their products were deleted meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written_off: Vec<Item>,
}

/// Why a hold ended without a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCause {
    /// The order was cancelled.
    Cancelled,
    /// Its time ran out.
    Expired,
    /// It was paid and refunded.
    Refunded,
}

/// A product is new or was edited; the highest `version` is the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct ProductChanged {
    /// The product.
    pub product_id: i64,
    /// Its stock keeping unit.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// Its price, in the shop's currency.
    #[serde(with = "crate::price")]
    pub price: Decimal,
    /// Grows with every edit.
    pub version: i64,
}

/// A product is no longer sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct ProductDeleted {
    /// The product.
    pub product_id: i64,
    /// Its stock keeping unit.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// Its last price, in the shop's currency.
    #[serde(with = "crate::price")]
    pub price: Decimal,
    /// Higher than every version before.
    pub version: i64,
}

macro_rules! event {
    ($event:ident, $routing_key:literal, $key:ident, $prefix:literal, $mandatory:literal) => {
        impl Event for $event {
            const NAME: &'static str = stringify!($event);
            const EXCHANGE: &'static str = EXCHANGE;
            const ROUTING_KEY: &'static str = $routing_key;
            const MANDATORY: bool = $mandatory;

            fn key(&self) -> String {
                format!(concat!($prefix, "{}"), self.$key)
            }
        }
    };
}

event!(StockReserved, "stock.reserved", order_id, "", true);
event!(StockRejected, "stock.rejected", order_id, "", true);
event!(StockReleased, "stock.released", order_id, "", true);
event!(ProductChanged, "product.changed", product_id, "product/", false);
event!(ProductDeleted, "product.deleted", product_id, "product/", false);

/// What inventory says of an order, as read from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StockEvent {
    /// See [`StockReserved`].
    Reserved(StockReserved),
    /// See [`StockRejected`].
    Rejected(StockRejected),
    /// See [`StockReleased`].
    Released(StockReleased),
}

impl StockEvent {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with it, for the dead letter's header.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        match tag(body)?.as_str() {
            StockReserved::NAME => parse_as(body).map(Self::Reserved),
            StockRejected::NAME => parse_as(body).map(Self::Rejected),
            StockReleased::NAME => parse_as(body).map(Self::Released),
            other => Err(ParseError::unexpected(other)),
        }
    }

    /// The order it is about.
    pub fn order_id(&self) -> &OrderId {
        match self {
            Self::Reserved(event) => &event.order_id,
            Self::Rejected(event) => &event.order_id,
            Self::Released(event) => &event.order_id,
        }
    }
}

/// What inventory says of its catalogue, as read from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProductEvent {
    /// See [`ProductChanged`].
    Changed(ProductChanged),
    /// See [`ProductDeleted`].
    Deleted(ProductDeleted),
}

impl ProductEvent {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with it, for the dead letter's header.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        match tag(body)?.as_str() {
            ProductChanged::NAME => parse_as(body).map(Self::Changed),
            ProductDeleted::NAME => parse_as(body).map(Self::Deleted),
            other => Err(ParseError::unexpected(other)),
        }
    }
}
