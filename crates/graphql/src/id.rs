use std::borrow::Cow;

use async_graphql::{
    ContextSelectionSet, ID, InputType, InputValueError, InputValueResult, OutputType, Positioned, ServerResult, Value,
    parser::types::Field, registry::Registry,
};
use serde::{Deserialize, Serialize};

use crate::Code;

/// A 64-bit id, published as GraphQL's `ID`: read from a string of digits or from an integer, written as a string.
///
/// GraphQL's `Int` has 32 bits and JavaScript's numbers have 53, so an id of 64 travels as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub i64);

impl From<Id> for Value {
    fn from(id: Id) -> Self {
        Value::String(id.0.to_string())
    }
}

impl InputType for Id {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        <ID as InputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <ID as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        let id = match &value {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            _ => None,
        };
        id.map(Self).ok_or_else(|| {
            InputValueError::custom("an id here is a whole number of at most 64 bits, such as \"1\"")
                .with_extension("code", Code::Invalid.as_str())
        })
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }
}

impl OutputType for Id {
    fn type_name() -> Cow<'static, str> {
        <ID as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <ID as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok((*self).into())
    }
}
