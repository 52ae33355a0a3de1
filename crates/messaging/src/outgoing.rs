use std::borrow::Cow;

use events::Event;
use uuid::Uuid;

use crate::Trace;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Tells this message from every other.
    pub message_id: Uuid,
    /// Where it goes.
    pub exchange: Cow<'static, str>,
    /// With which key.
    pub routing_key: Cow<'static, str>,
    /// The event's name.
    pub event: Cow<'static, str>,
    /// What ties it to others: an order or a product.
    pub key: String,
    /// The event as JSON.
    pub body: Vec<u8>,
    /// Whether somebody must be listening.
    pub mandatory: bool,
    /// The `traceparent` header.
    pub traceparent: String,
}

impl Outgoing {
    /// The message that carries an event.
    ///
    /// # Errors
    /// If the event cannot be written as JSON, which none of ours can fail at.
    pub fn of<E: Event>(event: &E, trace: Trace) -> serde_json::Result<Self> {
        Ok(Self {
            message_id: Uuid::now_v7(),
            exchange: E::EXCHANGE.into(),
            routing_key: E::ROUTING_KEY.into(),
            event: E::NAME.into(),
            key: event.key(),
            body: serde_json::to_vec(event)?,
            mandatory: E::MANDATORY,
            traceparent: trace.traceparent(),
        })
    }
}
