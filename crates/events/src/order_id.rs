use serde::{Deserialize, Deserializer, Serialize, de};

/// An order's public id: any text of 1 to 64 characters without NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct OrderId(String);

/// Why a text is no order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrderId {
    /// Nothing in it.
    #[error("order_id is empty")]
    Empty,
    /// More than 64 characters.
    #[error("order_id has more than 64 characters")]
    TooLong,
    /// PostgreSQL stores no NUL in a text.
    #[error("order_id contains NUL")]
    Nul,
}

impl OrderId {
    /// The longest order id, in characters.
    pub const MAX_CHARS: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, given away.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for OrderId {
    type Error = InvalidOrderId;

    fn try_from(text: String) -> Result<Self, InvalidOrderId> {
        if text.is_empty() {
            Err(InvalidOrderId::Empty)
        } else if text.contains('\0') {
            Err(InvalidOrderId::Nul)
        } else if text.chars().nth(Self::MAX_CHARS).is_some() {
            Err(InvalidOrderId::TooLong)
        } else {
            Ok(Self(text))
        }
    }
}

impl std::fmt::Display for OrderId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
