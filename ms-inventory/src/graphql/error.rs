//! Why a resolver has no answer, and how a client reads it.

use std::sync::Arc;

use ::graphql::Refusal;
use async_graphql::{Name, Value, indexmap::IndexMap};

use super::price::two_decimals;
use crate::product::{Invalid, InvalidRow, Product};
use crate::{ledger, product};

/// The most rows of an import that one answer lists.
const MAX_LISTED_ROWS: usize = 100;

/// What every resolver returns.
pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Why a resolver has no answer. It is not `Display`, so that no fault becomes an error by `?` without being one here.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client's to read.
    Refused(Refusal),
    /// Ours to read.
    Fault(anyhow::Error),
}

impl From<Failure> for async_graphql::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Fault(fault) => fault.into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.and_then(|code| Refusal::of_sqlstate(&code)) {
            Some(refusal) => Self::Refused(refusal),
            None => Self::Fault(error.into()),
        }
    }
}

impl From<Arc<sqlx::Error>> for Failure {
    fn from(error: Arc<sqlx::Error>) -> Self {
        Self::Fault(error.into())
    }
}

/// Something that should be in the context is not.
impl From<async_graphql::Error> for Failure {
    fn from(error: async_graphql::Error) -> Self {
        Self::Fault(anyhow::anyhow!(error.message))
    }
}

impl From<product::Error> for Failure {
    fn from(error: product::Error) -> Self {
        use product::Error;
        let message = error.to_string();
        let refusal = match error {
            Error::Unknown(id) => unknown(message, id),
            Error::SkuTaken(_) => Refusal::conflict(message).with("field", "sku"),
            Error::SkusTaken(rows) => {
                let wrong = |sku: String| Invalid::new("sku", format_args!("{sku:?} is taken"));
                let rows = rows.into_iter().map(|(row, sku)| InvalidRow { row, invalid: wrong(sku) });
                with_rows(Refusal::conflict(message), rows)
            }
            Error::Stale(current) => Refusal::conflict(message).with("current", catalogue_entry(&current)),
            Error::Held(current) => Refusal::conflict(message).with("current", levels(&current)),
            Error::Database(error) => return error.into(),
            fault @ Error::Event(_) => return Self::Fault(fault.into()),
        };
        Self::Refused(refusal)
    }
}

impl From<ledger::Error> for Failure {
    fn from(error: ledger::Error) -> Self {
        use ledger::Error;
        let message = error.to_string();
        let refusal = match error {
            Error::Invalid(wrong) => invalid(vec![wrong]),
            Error::Unknown(id) => unknown(message, id),
            Error::Stale(current) | Error::TooMany(current) => {
                Refusal::conflict(message).with("current", levels(&current))
            }
            Error::Oversold(current) => {
                Refusal::conflict(message).with("constraint", "no_oversell").with("current", levels(&current))
            }
            Error::KeyReused(_) => Refusal::conflict(message).with("field", "idempotencyKey"),
            Error::Database(error) => return error.into(),
        };
        Self::Refused(refusal)
    }
}

/// All that is wrong with an input: `extensions.fields`, a list of `{field, message}`.
pub(super) fn invalid(wrong: Vec<Invalid>) -> Refusal {
    let messages: Vec<&str> = wrong.iter().map(|invalid| invalid.message.as_str()).collect();
    let message = messages.join("; ");
    let fields = wrong.into_iter().map(|invalid| object(invalid_field(invalid)));
    Refusal::invalid(message).with("fields", Value::List(fields.collect()))
}

/// All that is wrong with the rows of an import: `extensions.rows`, a list of `{row, field, message}`.
pub(super) fn invalid_rows(wrong: Vec<InvalidRow>) -> Refusal {
    let refusal = Refusal::invalid(format!("{} things are wrong with the rows", wrong.len()));
    with_rows(refusal, wrong)
}

fn with_rows(refusal: Refusal, rows: impl IntoIterator<Item = InvalidRow>) -> Refusal {
    let rows = rows.into_iter().take(MAX_LISTED_ROWS).map(|InvalidRow { row, invalid }| {
        let mut entry = vec![("row", Value::from(row as u64))];
        entry.extend(invalid_field(invalid));
        object(entry)
    });
    refusal.with("rows", Value::List(rows.collect()))
}

fn invalid_field(invalid: Invalid) -> [(&'static str, Value); 2] {
    [("field", invalid.field.into()), ("message", invalid.message.into())]
}

fn unknown(message: String, id: i64) -> Refusal {
    Refusal::not_found(message).with("id", ::graphql::Id(id))
}

fn levels(product: &Product) -> Value {
    object([
        ("onHand", product.on_hand.into()),
        ("reserved", product.reserved.into()),
        ("available", product.level().available().into()),
    ])
}

fn catalogue_entry(product: &Product) -> Value {
    object([
        ("version", product.version.into()),
        ("sku", product.sku.as_str().into()),
        ("name", product.name.as_str().into()),
        ("description", product.description.as_str().into()),
        ("price", two_decimals(product.price).to_string().into()),
        ("updatedAt", product.updated_at.to_rfc3339().into()),
    ])
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (Name::new(name), value));
    Value::Object(fields.collect::<IndexMap<_, _>>())
}
