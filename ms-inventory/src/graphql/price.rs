//! Amounts of money, as they are shown and as a client writes them.

use std::borrow::Cow;

use async_graphql::{InputType, InputValueError, InputValueResult, Value, registry::Registry};
use rust_decimal::Decimal;

use crate::product::Invalid;

/// With two decimals, which zero comes from the database without.
pub(super) fn two_decimals(mut price: Decimal) -> Decimal {
    price.rescale(2);
    price
}

/// GraphQL's `Decimal`, read exactly: from text such as `"39.90"`, or from a number as it is spelled.
///
/// Text that is no decimal number is kept, so that whoever knows the row and the field it stands in can say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Price {
    text: String,
}

impl Price {
    /// The amount.
    ///
    /// # Errors
    /// When `field` holds no decimal number.
    pub(super) fn decimal(&self, field: &'static str) -> Result<Decimal, Invalid> {
        exactly(&self.text).ok_or_else(|| Invalid::new(field, "is not a decimal number such as \"39.90\""))
    }
}

/// Underscores, which the library takes for separators, are none in a price; and of a number with an exponent it would
/// round the part before it.
fn exactly(text: &str) -> Option<Decimal> {
    let significand = text.split(['e', 'E']).next()?;
    if text.contains('_') || Decimal::from_str_exact(significand).is_err() {
        return None;
    }
    if significand.len() == text.len() {
        Decimal::from_str_exact(text).ok()
    } else {
        Decimal::from_scientific(text).ok()
    }
}

impl InputType for Price {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        <Decimal as InputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Decimal as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match value.unwrap_or_default() {
            Value::String(text) => Ok(Self { text }),
            Value::Number(number) => Ok(Self { text: number.to_string() }),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.text.clone())
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_read_exactly() {
        for (value, expected) in [
            (Value::from("39.90"), Some("39.90")),
            (Value::from(39.9), Some("39.9")),
            (Value::from(7), Some("7")),
            (Value::from("0.1234567890123456789012345678"), Some("0.1234567890123456789012345678")),
            (Value::from("0.12345678901234567890123456789"), None),
            (Value::from("1e3"), Some("1000")),
            (Value::from(1e300), None),
            (Value::from("39,90"), None),
            (Value::from(""), None),
            (Value::from("NaN"), None),
            (Value::from("1_000"), None),
            (Value::from("1.00000000000000000000000000001e0"), None),
            (Value::from("1e2147483647"), None),
            (Value::from("1e-2147483648"), None),
        ] {
            let price = Price::parse(Some(value)).unwrap().decimal("price");
            assert_eq!(price.ok().map(|price| price.to_string()).as_deref(), expected);
        }
        assert!(Price::parse(Some(Value::from(true))).is_err());
        assert!(Price::parse(None).is_err());
    }
}
