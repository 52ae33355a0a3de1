//! What an operation is charged at: the objects and fields it may make the service read, and its changes.
//!
//! The schema has a measure of its own, its complexity, that refuses a single request. The library computes it inside of
//! validation and tells it only to extensions, and with any extension each field of an answer takes longer. What is
//! charged for many requests need not be as exact, so it is counted here: a list with pages by the page's size
//! (`first` or `last`, as GitHub counts them), everything else by its fields.

use std::collections::HashMap;

use async_graphql::Value as Constant;
use async_graphql::{
    Positioned, Value, Variables,
    parser::types::{ExecutableDocument, Field, OperationType, Selection, SelectionSet},
};

use crate::cost;

/// What a change costs beside what is read of it: a transaction.
const CHANGE: u64 = 500;

/// The entries of a page whose size is not said.
const DEFAULT_PAGE: u64 = 20;

/// The entries of the largest page.
const MAX_PAGE: u64 = 100;

/// What the operation that is to be executed is charged at: at least 1. The document has no fragment that spreads itself.
pub(crate) fn price(document: &ExecutableDocument, operation_name: Option<&str>, variables: &Variables) -> u32 {
    let Some(operation) = cost::operation(document, operation_name) else { return 1 };
    let mut counter = Counter { document, variables, fragments: HashMap::new() };
    let fields = counter.selection_set(&operation.selection_set);
    let changes = match operation.ty {
        OperationType::Mutation => CHANGE.saturating_mul(operation.selection_set.node.items.len() as u64),
        OperationType::Query | OperationType::Subscription => 0,
    };
    u32::try_from(fields.saturating_add(changes).max(1)).unwrap_or(u32::MAX)
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    variables: &'a Variables,
    fragments: HashMap<&'a str, u64>,
}

impl<'a> Counter<'a> {
    fn selection_set(&mut self, set: &'a Positioned<SelectionSet>) -> u64 {
        let price = |selection: &'a Positioned<Selection>| match &selection.node {
            Selection::Field(field) => {
                let inner = self.selection_set(&field.node.selection_set);
                inner.saturating_mul(self.page_size(&field.node)).saturating_add(1)
            }
            Selection::InlineFragment(inline) => self.selection_set(&inline.node.selection_set),
            Selection::FragmentSpread(spread) => self.fragment(spread.node.fragment_name.node.as_str()),
        };
        set.node.items.iter().map(price).fold(0, u64::saturating_add)
    }

    fn fragment(&mut self, name: &str) -> u64 {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return 0 };
        if let Some(price) = self.fragments.get(name.as_str()) {
            return *price;
        }
        let price = self.selection_set(&fragment.node.selection_set);
        self.fragments.insert(name.as_str(), price);
        price
    }

    /// How many times what is below a field is read.
    fn page_size(&self, field: &Field) -> u64 {
        let asked = ["first", "last"].into_iter().find_map(|name| field.get_argument(name));
        let size = asked.and_then(|size| {
            let resolved = size
                .node
                .clone()
                .into_const_with(|name| Ok::<_, ()>(self.variables.get(&name).cloned().unwrap_or(Constant::Null)));
            match resolved {
                Ok(Value::Number(number)) => number.as_u64(),
                _ => None,
            }
        });
        let is_page = || {
            field.selection_set.node.items.iter().any(|selection| {
                matches!(&selection.node, Selection::Field(field) if matches!(field.node.name.node.as_str(), "edges" | "nodes"))
            })
        };
        match size {
            Some(size) => size.clamp(1, MAX_PAGE),
            None if is_page() => DEFAULT_PAGE,
            None => 1,
        }
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
    fn aliases_fragments_and_changes_are_charged_each_time() {
        assert_eq!(of("{ a: product { id } b: product { id } }", json!({})), 4);
        assert_eq!(of("{ a: product { ...f } b: product { ...f } } fragment f on Product { id name }", json!({})), 6);
        assert_eq!(of("{ ... on Query { product { id } } }", json!({})), 2);
        assert_eq!(of("mutation { a: create { id } b: create { id } }", json!({})), 1_004);
    }

    #[test]
    fn fragments_that_double_are_charged_at_the_most_there_is() {
        let double = |n: u32| format!("fragment f{n} on T {{ a {{ ...f{m} }} b {{ ...f{m} }} }} ", m = n + 1);
        let document: String = (0..60).map(double).collect();
        assert_eq!(of(&format!("{{ ...f0 }} {document} fragment f60 on T {{ a }}"), json!({})), u32::MAX);
    }
}
