use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The largest body that is read as an event, in bytes. An order of [`MAX_LINES`](crate::MAX_LINES) lines takes about
/// 60 kB; the rest is room for fields to come and for absurd orders to be answered rather than dead-lettered.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Why a message body is no event.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Larger than [`MAX_BODY_BYTES`].
    #[error("body of {0} bytes is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge(usize),
    /// Not JSON in UTF-8, or not the fields of its event.
    #[error("not a valid event: {0}")]
    Invalid(#[from] serde_json::Error),
    /// An event this queue is not for.
    #[error("unexpected event {0:?}")]
    Unexpected(String),
}

impl ParseError {
    pub(crate) fn unexpected(event: &str) -> Self {
        Self::Unexpected(event.chars().take(64).collect())
    }
}

pub(crate) fn tag(body: &[u8]) -> Result<String, ParseError> {
    #[derive(Deserialize)]
    struct Tagged {
        event: String,
    }

    if body.len() > MAX_BODY_BYTES {
        return Err(ParseError::TooLarge(body.len()));
    }
    Ok(serde_json::from_slice::<Tagged>(body)?.event)
}

pub(crate) fn parse_as<E: DeserializeOwned>(body: &[u8]) -> Result<E, ParseError> {
    Ok(serde_json::from_slice(body)?)
}
