use std::borrow::Cow;

use async_graphql::{
    ContextSelectionSet, Name, ObjectType, OutputType, Positioned, ServerResult, Value,
    indexmap::IndexMap,
    parser::types::{Field, Selection, SelectionSet},
    registry::Registry,
};

/// An object whose fields are all there, such as a row that has been read.
///
/// The library resolves the fields of an object concurrently, each in a future of its own on the heap, which for a page
/// of rows costs more than to read them. Nothing waits in these, so they are resolved one after the other, in place. A
/// field that does wait is still right, but makes the others wait for it. An extension of the schema does not see them.
#[derive(Debug)]
pub struct Ready<T>(pub T);

impl<T: ObjectType> OutputType for Ready<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        if is_plain(&ctx.item.node) { Ok(in_place(ctx, &self.0).await) } else { self.0.resolve(ctx, field).await }
    }
}

/// Whether nothing is to be done but to ask for each field once: no fragments, no directives, no fields to be merged.
fn is_plain(set: &SelectionSet) -> bool {
    const MAX_FIELDS: usize = 32;
    set.items.len() <= MAX_FIELDS
        && set.items.iter().enumerate().all(|(at, selection)| {
            key(selection).is_some_and(|name| set.items[..at].iter().all(|other| key(other) != Some(name)))
        })
}

/// Under which key a field without directives is answered.
fn key(selection: &Positioned<Selection>) -> Option<&Name> {
    match &selection.node {
        Selection::Field(field) if field.node.directives.is_empty() => Some(&field.node.response_key().node),
        _ => None,
    }
}

async fn in_place<T: ObjectType>(ctx: &ContextSelectionSet<'_>, object: &T) -> Value {
    let selections = &ctx.item.node.items;
    let mut fields = IndexMap::with_capacity(selections.len());
    for selection in selections {
        let Selection::Field(field) = &selection.node else { continue };
        let value = if field.node.name.node == "__typename" {
            Value::String(object.introspection_type_name().into_owned())
        } else {
            match object.resolve_field(&ctx.with_field(field)).await {
                Ok(value) => value.unwrap_or_default(),
                Err(error) => {
                    ctx.add_error(error);
                    continue;
                }
            }
        };
        fields.insert(field.node.response_key().node.clone(), value);
    }
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}
