use ::trace::Trace;
use lapin::message::Delivery;
use lapin::types::AMQPValue;

/// The trace a message belongs to; a new one where it names none.
pub fn trace_of(delivery: &Delivery) -> Trace {
    let headers = delivery.properties.headers().as_ref();
    let header = headers.and_then(|headers| headers.inner().get(Trace::HEADER));
    match header {
        Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes()).ok().and_then(Trace::parse),
        _ => None,
    }
    .unwrap_or_else(Trace::start)
}
