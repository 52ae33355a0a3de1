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

impl Event for OrderCreated {
    const NAME: &'static str = "OrderCreated";
    const EXCHANGE: &'static str = EXCHANGE;
    const ROUTING_KEY: &'static str = "order.created";
    const MANDATORY: bool = true;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

impl Event for OrderCancelled {
    const NAME: &'static str = "OrderCancelled";
    const EXCHANGE: &'static str = EXCHANGE;
    const ROUTING_KEY: &'static str = "order.cancelled";
    const MANDATORY: bool = true;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// Any event of this exchange, as read from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    /// See [`OrderCreated`].
    Created(OrderCreated),
    /// See [`OrderCancelled`].
    Cancelled(OrderCancelled),
}

impl OrderEvent {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with it, for the dead letter's header.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        match tag(body)?.as_str() {
            OrderCreated::NAME => parse_as(body).map(Self::Created),
            OrderCancelled::NAME => parse_as(body).map(Self::Cancelled),
            other => Err(ParseError::unexpected(other)),
        }
    }
}
