//! What an operation is charged at: the objects and fields it may make the service read, and its changes.
//!
//! The schema has a measure of its own, its complexity, that refuses a single request. The library computes it inside of
//! validation and tells it only to extensions, and with any extension each field of an answer takes longer. What is
//! charged for many requests need not be as exact, so it is counted here: a list with pages by the page's size
//! (`first` or `last`, as GitHub counts them), everything else by its fields.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet},
};

use crate::{CHANGE_COST, cost};

/// The entries of a page whose size is not said.
const DEFAULT_PAGE: u64 = 20;

/// The entries of the largest page.
const MAX_PAGE: u64 = 100;

/// What it costs to count: all rows are read.
const COUNT: u64 = 100;

/// What the operation that is to be executed is charged at: at least 1. The document has no fragment that spreads itself.
pub(crate) fn price(document: &ExecutableDocument, operation_name: Option<&str>, variables: &Variables) -> u32 {
    let Some(operation) = cost::operation(document, operation_name) else { return 1 };
    let mut counter = Counter { document, operation, variables, fragments: HashMap::new() };
    let Price { fields, own, .. } = counter.selection_set(&operation.selection_set);
    let changes = match operation.ty {
        OperationType::Mutation => (CHANGE_COST as u64).saturating_mul(own),
        OperationType::Query | OperationType::Subscription => 0,
    };
    u32::try_from(fields.saturating_add(changes).max(1)).unwrap_or(u32::MAX)
}

/// What a selection set costs.
#[derive(Clone, Copy, Default)]
struct Price {
    /// All that is below.
    fields: u64,
    /// The fields of the set itself, fragments spelled out.
    own: u64,
    /// Whether it asks for the entries of a page.
    is_page: bool,
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
    variables: &'a Variables,
    fragments: HashMap<&'a str, Price>,
}

impl<'a> Counter<'a> {
    fn selection_set(&mut self, set: &'a Positioned<SelectionSet>) -> Price {
        let mut price = Price::default();
        for selection in &set.node.items {
            let part = match &selection.node {
                Selection::Field(field) => self.field(&field.node),
                Selection::InlineFragment(inline) => self.selection_set(&inline.node.selection_set),
                Selection::FragmentSpread(spread) => self.fragment(spread.node.fragment_name.node.as_str()),
            };
            price.fields = price.fields.saturating_add(part.fields);
            price.own = price.own.saturating_add(part.own);
            price.is_page |= part.is_page;
        }
        price
    }

    fn field(&mut self, field: &'a Field) -> Price {
        let name = field.name.node.as_str();
        let inner = self.selection_set(&field.selection_set);
        let times = inner.fields.saturating_mul(self.times(field, inner.is_page));
        let own = if name == "totalCount" { COUNT } else { 1 };
        Price { fields: times.saturating_add(own), own: 1, is_page: matches!(name, "edges" | "nodes") }
    }

    fn fragment(&mut self, name: &str) -> Price {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return Price::default() };
        if let Some(price) = self.fragments.get(name.as_str()) {
            return *price;
        }
        let price = self.selection_set(&fragment.node.selection_set);
        self.fragments.insert(name.as_str(), price);
        price
    }

    /// How many times what is below a field is read: as often as its page, or a list it is given, has entries.
    fn times(&self, field: &Field, is_page: bool) -> u64 {
        let mut times = if is_page { DEFAULT_PAGE } else { 1 };
        for (name, value) in &field.arguments {
            let value = value.node.clone().into_const_with(|name| Ok::<_, ()>(self.variable(&name)));
            match (name.node.as_str(), value) {
                ("first" | "last", Ok(Value::Number(number))) => {
                    return number.as_u64().map_or(times, |size| size.clamp(1, MAX_PAGE));
                }
                (_, Ok(Value::List(entries))) => times = times.max(entries.len() as u64),
                _ => (),
            }
        }
        times
    }

    /// What a variable stands for, be it given or by default.
    fn variable(&self, name: &Name) -> Value {
        let given = self.variables.get(name).cloned();
        let default = || {
            let mut definitions = self.operation.variable_definitions.iter();
            let definition = definitions.find(|definition| definition.node.name.node == *name)?;
            definition.node.default_value.as_ref().map(|value| value.node.clone())
        };
        given.or_else(default).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;

    fn of(query: &str, variables: serde_json::Value) -> u32 {
        price(&parse_query(query).unwrap(), None, &Variables::from_json(variables))
    }

    #[test]
    fn a_page_is_charged_by_its_size() {
        let page = "query($n: Int) { products(first: $n) { nodes { id name } } }";
        assert_eq!(of("{ product { id name } }", json!({})), 3);
        assert_eq!(of("{ products(first: 10) { nodes { id name } } }", json!({})), 31);
        assert_eq!(of("{ products(last: 1) { nodes { id name } } }", json!({})), 4);
        assert_eq!(of("{ products { edges { node { id } } } }", json!({})), 61);
        assert_eq!(of(page, json!({"n": 50})), 151);
        assert_eq!(of(page, json!({})), 61, "a size that is not said is the usual one");
        assert_eq!(of(page, json!({"n": 4_000_000_000_u64})), 301, "the largest page");
        assert_eq!(of(page, json!({"n": -7})), 61);
    }

    #[test]
    fn a_page_is_charged_by_its_size_however_that_is_said() {
        let fragment = "fragment f on ProductConnection { nodes { id name } }";
        for (query, price) in [
            ("query($n: Int = 100) { products(first: $n) { nodes { id name } } }".to_owned(), 301),
            (format!("query($n: Int = 100) {{ products(first: $n) {{ ...f }} }} {fragment}"), 301),
            (format!("{{ products {{ ...f }} }} {fragment}"), 61),
            ("{ products { ... on ProductConnection { nodes { id name } } } }".to_owned(), 61),
            ("{ products(first: null, last: 100) { nodes { id name } } }".to_owned(), 301),
            ("{ products(first: 1) { totalCount } }".to_owned(), 101),
            ("{ quote(items: [{a: 1}, {a: 2}, {a: 3}]) { items { id } total } }".to_owned(), 10),
        ] {
            assert_eq!(of(&query, json!({})), price, "{query}");
        }
    }

    #[test]
    fn aliases_fragments_and_changes_are_charged_each_time() {
        assert_eq!(of("{ a: product { id } b: product { id } }", json!({})), 4);
        assert_eq!(of("{ a: product { ...f } b: product { ...f } } fragment f on Product { id name }", json!({})), 6);
        assert_eq!(of("{ ... on Query { product { id } } }", json!({})), 2);
        assert_eq!(of("mutation { a: create { id } b: create { id } }", json!({})), 1_004);
        let fragment = "fragment f on Mutation { a: create { id } b: create { id } }";
        assert_eq!(of(&format!("mutation {{ ...f }} {fragment}"), json!({})), 1_004);
    }

    #[test]
    fn fragments_that_double_are_charged_at_the_most_there_is() {
        let double = |n: u32| format!("fragment f{n} on T {{ a {{ ...f{m} }} b {{ ...f{m} }} }} ", m = n + 1);
        let document: String = (0..60).map(double).collect();
        assert_eq!(of(&format!("{{ ...f0 }} {document} fragment f60 on T {{ a }}"), json!({})), u32::MAX);
    }
}
