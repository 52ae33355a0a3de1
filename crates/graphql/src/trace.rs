use std::fmt;

/// The W3C trace id of a request: 128 bits, not zero, displayed as 32 hexadecimal digits.
///
/// A layer that knows it puts it into the request's extensions; where none did, the door makes one up, so that each
/// fault can be found in the log by the `traceId` its client was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl TraceId {
    pub(crate) fn random() -> Self {
        Self(rand::random::<u128>().max(1))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
