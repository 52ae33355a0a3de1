//! What could not be handled waits in `Q.dead` with the reason in a header, until a person replays or purges it.

mod command;
mod shelf;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

use crate::Trace;
use crate::publisher::{Frame, message_id};

pub use command::Command;
pub use shelf::{DeadLetter, Shelf};

/// Why the message is dead.
pub const REASON_HEADER: &str = "x-dead-letter-reason";

/// Headers travel in one frame; a reason is cut to this many characters.
const MAX_REASON_CHARS: usize = 1_000;

/// A message with the body and the properties it came with, and its reason, on its way to the dead-letter queue of `queue`.
pub(crate) fn frame<'a>(queue: &'static str, delivery: &'a Delivery, reason: &str) -> Frame<'a> {
    Frame {
        exchange: events::queues::DEAD_LETTERS,
        routing_key: queue.into(),
        mandatory: true,
        body: &delivery.data,
        properties: with_reason(&delivery.properties, reason),
    }
}

/// Tells that a message is dead, once it is in its dead-letter queue.
pub(crate) fn report(queue: &'static str, delivery: &Delivery, reason: &str) {
    tracing::warn!(queue, message.id = message_id(&delivery.properties), reason, "a message is dead-lettered");
    metrics::counter!("messages_dead_lettered_total", "queue" => queue).increment(1);
}

fn with_reason(properties: &BasicProperties, reason: &str) -> BasicProperties {
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let mut headers = own_headers(properties);
    headers.insert(REASON_HEADER.into(), AMQPValue::LongString(reason.into()));
    lasting(properties).with_headers(headers)
}

/// Of the headers, the one that means something to us. The others are a stranger's: they may fill a frame, so that there
/// is no room for the reason, or send a replayed or retried message to other queues (`CC`, `BCC`).
pub(crate) fn own_headers(properties: &BasicProperties) -> FieldTable {
    let mut own = FieldTable::default();
    let trace = properties.headers().as_ref().and_then(|headers| headers.inner().get(Trace::HEADER));
    if let Some(AMQPValue::LongString(trace)) = trace
        && std::str::from_utf8(trace.as_bytes()).is_ok_and(|trace| Trace::parse(trace).is_some())
    {
        own.insert(Trace::HEADER.into(), AMQPValue::LongString(trace.clone()));
    }
    own
}

/// A message that goes to another queue must survive the broker whatever its sender asked for. An expiration would end it, and
/// a user id that is not ours would have the broker close the channel.
pub(crate) fn lasting(properties: &BasicProperties) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! keep {
        ($($get:ident => $with:ident),*) => {$(
            if let Some(value) = properties.$get() {
                kept = kept.$with(value.clone());
            }
        )*};
    }
    keep!(
        content_type => with_content_type, content_encoding => with_content_encoding,
        correlation_id => with_correlation_id, reply_to => with_reply_to, message_id => with_message_id,
        timestamp => with_timestamp, kind => with_type, app_id => with_app_id
    );
    kept
}
