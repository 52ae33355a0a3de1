//! The event contract between the services, and with any order service in another language.
//!
//! Every event is one JSON object in UTF-8, snake_case, tagged by `event`. Fields are only ever added, unknown fields
//! are ignored, and a new meaning is a new event name. The files in `golden/` are the contract as examples: each must
//! parse, and what is written must equal them.
//!
//! Reading order: [`orders`] and [`inventory`] hold the events of each exchange, [`queues`] who listens, [`Event`] what
//! all events share, [`ParseError`] why a body is none.

pub mod inventory;
mod item;
mod order_id;
pub mod orders;
mod parse;
mod price;
pub mod queues;

pub use item::{Item, MAX_LINES, MAX_QUANTITY};
pub use order_id::{InvalidOrderId, OrderId};
pub use parse::{MAX_BODY_BYTES, ParseError};

/// What every published event knows about itself.
pub trait Event: serde::Serialize {
    /// The value of the JSON field `event`, also the AMQP property `type`.
    const NAME: &'static str;
    /// The exchange it is published to.
    const EXCHANGE: &'static str;
    /// The routing key it is published with.
    const ROUTING_KEY: &'static str;
    /// Whether somebody must be listening: such an event is never dropped because no queue is bound for it yet.
    const MANDATORY: bool;

    /// What ties the event to others: the order, or `product/` and the product where no order is concerned. Events with
    /// the same key keep their order. It becomes the AMQP property `correlation_id`.
    fn key(&self) -> String;
}
