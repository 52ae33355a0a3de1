//! An amount of money as text with two decimals, which zero comes from a database without.

use rust_decimal::Decimal;
use serde::{Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(price: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{price:.2}"))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    rust_decimal::serde::str::deserialize(deserializer)
}
