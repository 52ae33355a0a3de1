//! Events on the exchange `orders`: what happened to an order.

use serde::{Deserialize, Serialize};

use crate::parse::{ParseError, parse_as, tag};
use crate::{Event, Item, OrderId};

/// The exchange these events are published to.
pub const EXCHANGE: &str = "orders";

/// A customer wants these items; inventory answers with StockReserved or StockRejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// What it asks for. The same product on two lines counts as their sum.
    pub items: Vec<Item>,
}

/// The order will not be fulfilled: its hold, if any, is to be released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// The order is paid: its hold is to be turned into a sale, or, where there is none any more, its items are to be sold if
/// they still can be. Inventory answers with StockReserved, without an end, or StockRejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct OrderCompleted {
    /// The order.
    pub order_id: OrderId,
    /// What it asks for. Needed only of an order that inventory has not heard of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// The payment of the order was given back. Inventory answers with StockReleased where the goods come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub struct OrderRefunded {
    /// The order.
    pub order_id: OrderId,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// Whether the goods come back and can be sold again.
    #[serde(default = "yes")]
    pub restock: bool,
}

fn yes() -> bool {
    true
}

macro_rules! event {
    ($event:ident, $routing_key:literal) => {
        impl Event for $event {
            const NAME: &'static str = stringify!($event);
            const EXCHANGE: &'static str = EXCHANGE;
            const ROUTING_KEY: &'static str = $routing_key;
            const MANDATORY: bool = true;

            fn key(&self) -> String {
                self.order_id.to_string()
            }
        }
    };
}

event!(OrderCreated, "order.created");
event!(OrderCompleted, "order.completed");
event!(OrderCancelled, "order.cancelled");
event!(OrderRefunded, "order.refunded");

/// Any event of this exchange, as read from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    /// See [`OrderCreated`].
    Created(OrderCreated),
    /// See [`OrderCompleted`].
    Completed(OrderCompleted),
    /// See [`OrderCancelled`].
    Cancelled(OrderCancelled),
    /// See [`OrderRefunded`].
    Refunded(OrderRefunded),
}

impl OrderEvent {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with it, for the dead letter's header.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        match tag(body)?.as_str() {
            OrderCreated::NAME => parse_as(body).map(Self::Created),
            OrderCompleted::NAME => parse_as(body).map(Self::Completed),
            OrderCancelled::NAME => parse_as(body).map(Self::Cancelled),
            OrderRefunded::NAME => parse_as(body).map(Self::Refunded),
            other => Err(ParseError::unexpected(other)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => OrderCreated::NAME,
            Self::Completed(_) => OrderCompleted::NAME,
            Self::Cancelled(_) => OrderCancelled::NAME,
            Self::Refunded(_) => OrderRefunded::NAME,
        }
    }
}
