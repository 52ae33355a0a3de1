//! Which trace a piece of work belongs to: the 128-bit trace id of [W3C Trace Context], which travels from a request
//! through the events it causes in the header `traceparent`.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

use std::fmt;

/// A trace, shown as the 32 hexadecimal digits of its id, which is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace(u128);

impl Trace {
    /// The name of the header that carries it, in AMQP and HTTP alike.
    pub const HEADER: &'static str = "traceparent";

    /// A trace of its own.
    pub fn start() -> Self {
        Self(rand::random_range(1..=u128::MAX))
    }

    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; of what is not that, there is no trace.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !(hex(version, 2) && hex(id, 32) && hex(span, 16) && hex(flags, 2)) {
            return None;
        }
        u128::from_str_radix(id, 16).ok().filter(|id| *id != 0).map(Self)
    }

    /// The header for a message caused in this trace, with a span of its own.
    pub fn traceparent(self) -> String {
        format!("00-{self}-{:016x}-01", rand::random_range(1..=u64::MAX))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn a_trace_survives_being_written_and_read() {
        let trace = Trace::start();
        assert_eq!(Trace::parse(&trace.traceparent()), Some(trace));
        assert_ne!(trace.traceparent(), trace.traceparent(), "each message has a span of its own");
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        for text in [
            "",
            "00",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(text), None, "{text}");
        }
    }
}
