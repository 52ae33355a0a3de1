use serde::{Deserialize, Deserializer, Serialize, de};

/// The most lines an order may have; one with more is rejected.
pub const MAX_LINES: usize = 1_000;

/// The largest quantity of one product in one order; more is rejected.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// One line of an order: so many of that product.
///
/// A parsed quantity may be absurd (negative, or beyond [`MAX_QUANTITY`]): such an order is well-formed and is
/// answered with a rejection. Integers beyond 64 bits are read as the nearest 64-bit one, for the same reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The product's id.
    pub product_id: i64,
    /// How many of it.
    #[serde(deserialize_with = "saturating_integer")]
    pub quantity: i64,
}

fn saturating_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Integer;

    impl de::Visitor<'_> for Integer {
        type Value = i64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an integer")
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<i64, E> {
            Ok(value)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
            Ok(i64::try_from(value).unwrap_or(i64::MAX))
        }

        /// JSON has one kind of number: `2.0` is the integer 2, and an integer beyond 64 bits arrives as a float.
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<i64, E> {
            if value.fract() == 0.0 {
                Ok(value as i64)
            } else {
                Err(E::invalid_type(de::Unexpected::Float(value), &self))
            }
        }
    }

    deserializer.deserialize_any(Integer)
}
