//! Remembers documents that passed every check, so that a client's next request with the same text is executed at once.
//!
//! What is remembered is exact: the text as it was sent decides, with the operation that was named, and with the kinds
//! of the variables' values, because validation looks at those. Their values are looked at in each request.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::{
    Request, Value, Variables,
    parser::types::{BaseType, ExecutableDocument, OperationDefinition},
};

use crate::cost;

/// How many kinds of variables are told apart for one document. A client has one or two.
const MAX_SHAPES: usize = 8;

/// Documents that were admitted, the least used forgotten first.
///
/// There are two generations, each of half the bytes of text: the younger one takes what comes, and what of the
/// older one is asked for again. When it is full, it becomes the older one, and what is left of that is forgotten.
pub(crate) struct Documents {
    /// Of a generation.
    max_bytes: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Key, Known>,
    old: HashMap<Key, Known>,
    young_bytes: usize,
}

type Key = (String, Option<String>);

struct Known {
    document: Arc<ExecutableDocument>,
    /// With which variables it is valid.
    shapes: Vec<u64>,
}

/// What is known of a request's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recall {
    /// It is new.
    New,
    /// It may be validated: it is parsed, and bounded.
    Admitted,
    /// And it is valid with variables like these.
    Valid,
}

impl Documents {
    /// Remembers at most so many bytes of text. Parsed, a document takes up to a hundred times its text.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes: max_bytes / 2, generations: Mutex::default() }
    }

    /// Gives the request its parsed document, where it is known.
    pub(crate) fn recall(&self, request: &mut Request) -> Recall {
        if !self.is_for(&request.query) {
            return Recall::New;
        }
        let key = (mem::take(&mut request.query), request.operation_name.take());
        let found = self.find(&key, &request.variables);
        (request.query, request.operation_name) = key;
        let Some((document, is_valid)) = found else { return Recall::New };
        request.set_parsed_query(ExecutableDocument::clone(&document));
        if is_valid { Recall::Valid } else { Recall::Admitted }
    }

    /// Remembers a document that has been found valid.
    pub(crate) fn remember(&self, request: &mut Request) {
        if !self.is_for(&request.query) {
            return;
        }
        let key = (request.query.clone(), request.operation_name.clone());
        let Ok(document) = request.parsed_query().cloned() else { return };
        let Some(shape) = shape(&document, key.1.as_deref(), &request.variables) else { return };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = generations.young.get_mut(&key) {
            if known.shapes.len() < MAX_SHAPES && !known.shapes.contains(&shape) {
                known.shapes.push(shape);
            }
            return;
        }
        generations.put(key, Known { document: Arc::new(document), shapes: vec![shape] }, self.max_bytes);
    }

    /// A single one must not push out all others, nor take long to be looked for.
    fn is_for(&self, query: &str) -> bool {
        query.len() <= self.max_bytes / 4
    }

    fn find(&self, key: &Key, variables: &Variables) -> Option<(Arc<ExecutableDocument>, bool)> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if !generations.young.contains_key(key) {
            let (key, known) = generations.old.remove_entry(key)?;
            generations.put(key, known, self.max_bytes);
        }
        let Known { document, shapes } = generations.young.get(key)?;
        let is_valid = shape(document, key.1.as_deref(), variables).is_some_and(|shape| shapes.contains(&shape));
        Some((document.clone(), is_valid))
    }
}

impl Generations {
    fn put(&mut self, key: Key, known: Known, max_bytes: usize) {
        let bytes = key.0.len();
        if self.young_bytes + bytes > max_bytes {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, known);
    }
}

/// Of what kind each variable's value is, three bits for each; `None` where validity depends on more than that, as it
/// does for enums and input objects.
fn shape(document: &ExecutableDocument, operation_name: Option<&str>, variables: &Variables) -> Option<u64> {
    const BITS: u32 = 3;
    let OperationDefinition { variable_definitions, .. } = cost::operation(document, operation_name)?;
    if variable_definitions.len() > (u64::BITS / BITS) as usize {
        return None;
    }
    variable_definitions.iter().try_fold(0, |shape, definition| {
        let is_plain = match &definition.node.var_type.node.base {
            BaseType::Named(name) => matches!(name.as_str(), "Int" | "Float" | "String" | "Boolean" | "ID"),
            BaseType::List(_) => false,
        };
        let kind = match variables.get(&definition.node.name.node) {
            None => 0,
            Some(Value::Null) => 1,
            _ if !is_plain => return None,
            Some(Value::Boolean(_)) => 2,
            Some(Value::String(_)) => 3,
            Some(Value::Number(number)) if number.is_f64() => 4,
            Some(Value::Number(number)) => match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(0..) => 5,
                Some(_) => 6,
                None => 7,
            },
            Some(_) => return None,
        };
        Some(shape << BITS | kind)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(query: &str, variables: serde_json::Value) -> Request {
        Request::new(query).variables(Variables::from_json(variables))
    }

    fn recall(documents: &Documents, query: &str, variables: serde_json::Value) -> Recall {
        documents.recall(&mut request(query, variables))
    }

    #[test]
    fn a_document_is_valid_again_with_variables_of_the_same_kinds() {
        const QUERY: &str = "query($n: Int, $s: String) { field(n: $n, s: $s) }";
        let documents = Documents::new(10_000);
        assert_eq!(recall(&documents, QUERY, json!({ "n": 1, "s": "a" })), Recall::New);
        documents.remember(&mut request(QUERY, json!({ "n": 1, "s": "a" })));
        assert_eq!(recall(&documents, QUERY, json!({ "n": 7, "s": "b" })), Recall::Valid);
        for other in [
            json!({ "n": 1 }),
            json!({ "n": 1, "s": null }),
            json!({ "n": 1, "s": ["a"] }),
            json!({ "n": "1", "s": "a" }),
            json!({ "n": 1.5, "s": "a" }),
            json!({ "n": -1, "s": "a" }),
            json!({ "n": 1_u64 << 40, "s": "a" }),
        ] {
            assert_eq!(recall(&documents, QUERY, other.clone()), Recall::Admitted, "{other}");
        }
        documents.remember(&mut request(QUERY, json!({ "n": 1 })));
        assert_eq!(recall(&documents, QUERY, json!({ "n": 2 })), Recall::Valid);
        assert_eq!(recall(&documents, &QUERY.replace("field", "other"), json!({ "n": 2 })), Recall::New);
    }

    #[test]
    fn variables_whose_values_decide_are_looked_at_each_time() {
        for ty in ["Colour", "[Int]", "Filter", "DateTime"] {
            let query = format!("query($v: {ty}) {{ field(v: $v) }}");
            let documents = Documents::new(10_000);
            documents.remember(&mut request(&query, json!({ "v": "RED" })));
            assert_eq!(recall(&documents, &query, json!({ "v": "RED" })), Recall::New, "{ty}");
            documents.remember(&mut request(&query, json!({})));
            assert_eq!(recall(&documents, &query, json!({})), Recall::Valid, "{ty}");
            assert_eq!(recall(&documents, &query, json!({ "v": "RED" })), Recall::Admitted, "{ty}");
        }
    }

    #[test]
    fn another_operation_of_the_same_document_is_another_one() {
        let named = |name: &str| {
            let mut request = request("query A { a } query B { b }", json!({}));
            request.operation_name = Some(name.to_owned());
            request
        };
        let documents = Documents::new(10_000);
        documents.remember(&mut named("A"));
        assert_eq!(documents.recall(&mut named("A")), Recall::Valid);
        assert_eq!(documents.recall(&mut named("B")), Recall::New);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        const USED: &str = "{ used }";
        let documents = Documents::new(2_000);
        documents.remember(&mut request(USED, json!({})));
        for n in 0..10_000 {
            documents.remember(&mut request(&format!("{{ field{n} }}"), json!({})));
            assert_eq!(recall(&documents, USED, json!({})), Recall::Valid, "{n}");
        }
        let generations = documents.generations.lock().unwrap();
        let bytes = |generation: &HashMap<Key, Known>| generation.keys().map(|(query, _)| query.len()).sum::<usize>();
        assert_eq!(bytes(&generations.young), generations.young_bytes);
        assert!(bytes(&generations.young) <= 1_000 && bytes(&generations.old) <= 1_000);
    }

    #[test]
    fn a_large_document_is_not_remembered() {
        let documents = Documents::new(2_000);
        let large = format!("{{ {} }}", "field ".repeat(50));
        documents.remember(&mut request(&large, json!({})));
        assert_eq!(recall(&documents, &large, json!({})), Recall::New);
    }
}
