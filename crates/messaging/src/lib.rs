//! Events in and out of RabbitMQ, exactly once in effect.
//!
//! A service opens a [`session`], which declares its [`topology`] and runs its consumers and its relay until the
//! connection breaks, then pauses and does all of it again: start-up and recovery are the same code.
//!
//! - [`consumer`] hands all deliveries that are ready to a [`Handler`](consumer::Handler) as one batch, publishes what
//!   it answers, waits for the broker's confirms and only then acknowledges, strictly in order.
//! - [`dead_letters`] holds what could not be handled, with the reason in a header, for a person to look at.
//! - [`outbox`] stores an event in the transaction that causes it, and relays it after the commit.
//! - [`Progress`] tells health whether messages get on.
//!
//! **Architecture invariant:** nothing here knows what an order or a product is.

pub mod consumer;
pub mod dead_letters;
mod fault;
pub mod outbox;
mod outgoing;
mod progress;
mod publisher;
pub mod session;
pub mod topology;
mod trace;

pub use crate::trace::trace_of;
pub use ::trace::Trace;
pub use fault::Fault;
pub use outgoing::Outgoing;
pub use progress::Progress;
pub use publisher::{Confirms, PublishError, Publisher, Unplaced};
