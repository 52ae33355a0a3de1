//! Gives a field that failed the null that the GraphQL specification asks for.
//!
//! async-graphql leaves it out of the response, whatever its type is, so a client would find neither null nor the
//! value its schema promises. Here it becomes null, and where its type is non-null, the nearest object or item around
//! it that may be null becomes null instead
//! ([Handling execution errors](https://spec.graphql.org/draft/#sec-Handling-Execution-Errors)).
//!
//! Only responses with errors come here, so the document is parsed once more instead of being kept for all.

use std::collections::HashMap;

use async_graphql::{
    Name, PathSegment, Response, Value,
    parser::{
        parse_query, parse_schema,
        types::{
            BaseType, ExecutableDocument, FieldDefinition, OperationType, Selection, SelectionSet, Type, TypeKind,
            TypeSystemDefinition,
        },
    },
};

use crate::cost::operation;

/// The type of each field of each object and interface of a schema.
pub(crate) struct FieldTypes(HashMap<Name, HashMap<Name, Type>>);

impl FieldTypes {
    /// Reads them from the schema's own description.
    ///
    /// # Panics
    ///
    /// Panics where the library cannot read what it wrote.
    pub(crate) fn of(sdl: &str) -> Self {
        let document = parse_schema(sdl).expect("the library reads the schema it wrote");
        let types = document.definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => match definition.node.kind {
                TypeKind::Object(object) => Some((definition.node.name.node, fields(object.fields))),
                TypeKind::Interface(interface) => Some((definition.node.name.node, fields(interface.fields))),
                _ => None,
            },
            _ => None,
        });
        Self(types.collect())
    }

    fn get(&self, parent: &str, field: &str) -> Option<&Type> {
        self.0.get(parent)?.get(field)
    }
}

fn fields(definitions: Vec<async_graphql::Positioned<FieldDefinition>>) -> HashMap<Name, Type> {
    definitions.into_iter().map(|field| (field.node.name.node, field.node.ty.node)).collect()
}

/// Completes the data of a response to the operation of that name in `query`.
pub(crate) fn complete(response: &mut Response, query: &str, operation_name: Option<&str>, types: &FieldTypes) {
    let Response { data, errors, .. } = response;
    let failed = || errors.iter().map(|error| error.path.as_slice()).filter(|path| !path.is_empty());
    if failed().next().is_none() {
        return;
    }
    let Ok(document) = parse_query(query) else { return };
    for path in failed() {
        fill(data, path);
    }
    for path in failed() {
        propagate(data, path, &nullability(path, &document, operation_name, types));
    }
}

/// Puts a null where the field is missing. An object all of whose fields failed is null as a whole, and is made again.
fn fill(data: &mut Value, path: &[PathSegment]) {
    let mut value = data;
    for segment in path {
        if matches!((segment, &*value), (PathSegment::Field(_), Value::Null)) {
            *value = Value::Object(Default::default());
        }
        value = match (segment, value) {
            (PathSegment::Field(key), Value::Object(fields)) => fields.entry(Name::new(key)).or_insert(Value::Null),
            (PathSegment::Index(index), Value::List(items)) if *index < items.len() => &mut items[*index],
            _ => return,
        };
    }
}

/// Turns a null that must not be into a null of what is around it, as far out as it takes.
fn propagate(data: &mut Value, path: &[PathSegment], nullable: &[bool]) {
    for length in (1..=nullable.len()).rev() {
        let is_null = at(data, &path[..length]).is_some_and(|value| *value == Value::Null);
        if !is_null || nullable[length - 1] {
            return;
        }
        if let Some(parent) = at(data, &path[..length - 1]) {
            *parent = Value::Null;
        }
    }
}

fn at<'a>(data: &'a mut Value, path: &[PathSegment]) -> Option<&'a mut Value> {
    path.iter().try_fold(data, |value, segment| match (segment, value) {
        (PathSegment::Field(key), Value::Object(fields)) => fields.get_mut(key.as_str()),
        (PathSegment::Index(index), Value::List(items)) => items.get_mut(*index),
        _ => None,
    })
}

/// Whether null is a value of what stands at each step of a path, as far as the schema tells.
fn nullability<'a>(
    path: &[PathSegment],
    document: &'a ExecutableDocument,
    operation_name: Option<&str>,
    types: &'a FieldTypes,
) -> Vec<bool> {
    let Some(operation) = operation(document, operation_name) else {
        return Vec::new();
    };
    let root = match operation.ty {
        OperationType::Query => "Query",
        OperationType::Mutation => "Mutation",
        OperationType::Subscription => "Subscription",
    };
    let mut sets = vec![(root, &operation.selection_set.node)];
    let mut current: Option<&Type> = None;
    let mut nullable = Vec::with_capacity(path.len());
    for segment in path {
        current = match (segment, current.map(|ty| &ty.base)) {
            (PathSegment::Index(_), Some(BaseType::List(item))) => Some(&**item),
            (PathSegment::Index(_), _) => None,
            (PathSegment::Field(key), _) => {
                let mut found = Vec::new();
                for (parent, set) in sets {
                    find(key, parent, set, document, types, &mut found);
                }
                sets = found.iter().map(|(ty, set)| (type_name(ty), *set)).collect();
                found.first().map(|(ty, _)| *ty)
            }
        };
        let Some(current) = current else { break };
        nullable.push(current.nullable);
    }
    nullable
}

/// Collects the fields that answer under `key`, through all fragments: one key may be selected in several places.
fn find<'a>(
    key: &str,
    parent: &'a str,
    set: &'a SelectionSet,
    document: &'a ExecutableDocument,
    types: &'a FieldTypes,
    found: &mut Vec<(&'a Type, &'a SelectionSet)>,
) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) if field.node.response_key().node == key => {
                let ty = types.get(parent, &field.node.name.node);
                found.extend(ty.map(|ty| (ty, &field.node.selection_set.node)));
            }
            Selection::Field(_) => {}
            Selection::InlineFragment(inline) => {
                let condition = inline.node.type_condition.as_ref().map(|condition| condition.node.on.node.as_str());
                find(key, condition.unwrap_or(parent), &inline.node.selection_set.node, document, types, found);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    let condition = fragment.node.type_condition.node.on.node.as_str();
                    find(key, condition, &fragment.node.selection_set.node, document, types, found);
                }
            }
        }
    }
}

fn type_name(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => type_name(item),
    }
}
