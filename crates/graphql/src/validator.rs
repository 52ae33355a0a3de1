//! Validates a document by all rules, apart from executing it.
//!
//! The library validates at each execution, which takes as long as everything else around a small query together. Here
//! the schema that executes checks only what depends on the values of a request (its complexity), and a second schema
//! of the same types, with no data and resolvers that answer nothing, applies all rules. What passed it is remembered by
//! [`documents`](crate::documents).

use std::borrow::Cow;
use std::marker::PhantomData;
use std::pin::Pin;

use async_graphql::{
    Context, ContextSelectionSet, Executor, ObjectType, OutputType, Positioned, Request, Response, Schema, ServerError,
    ServerResult, SubscriptionType, Value, parser::types::Field, registry::Registry, resolver_utils::ContainerType,
};
use futures::Stream;

use crate::Limits;

/// A schema that says what is wrong with a document, and executes nothing.
pub(crate) type Validator<Q, M, S> = Schema<Described<Q>, Described<M>, Described<S>>;

/// The validator beside a schema.
///
/// # Panics
///
/// Panics where the schema has more than its roots lead to, such as a directive of its own: the validator would refuse
/// that.
pub(crate) fn beside<Q, M, S>(schema: &Schema<Q, M, S>, limits: &Limits) -> Validator<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let mut validator = Schema::build(Described::new(), Described::new(), Described::new());
    if schema.names().iter().any(|name| name == "_Service") {
        validator = validator.enable_federation();
    }
    let validator = limits.apply(validator).finish();
    assert_eq!(validator.sdl(), schema.sdl(), "the schema has more than its roots lead to");
    validator
}

/// All that is wrong with the request.
pub(crate) async fn validate(validator: &impl Executor, request: &mut Request) -> Vec<ServerError> {
    let mut same = Request::new("").variables(request.variables.clone()).disable_introspection();
    same.operation_name = request.operation_name.clone();
    match request.parsed_query() {
        Ok(document) => same.set_parsed_query(document.clone()),
        Err(error) => return vec![error],
    }
    let Response { errors, .. } = validator.execute(same).await;
    errors
}

/// A root of which only the type is there.
pub(crate) struct Described<T>(PhantomData<fn() -> T>);

impl<T> Described<T> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ObjectType> OutputType for Described<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

impl<T: ObjectType> ContainerType for Described<T> {
    fn is_empty() -> bool {
        T::is_empty()
    }

    async fn resolve_field(&self, _: &Context<'_>) -> ServerResult<Option<Value>> {
        Ok(None)
    }
}

impl<T: ObjectType> ObjectType for Described<T> {}

impl<T: SubscriptionType> SubscriptionType for Described<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    fn is_empty() -> bool {
        T::is_empty()
    }

    fn create_field_stream<'a>(
        &'a self,
        _: &'a Context<'_>,
    ) -> Option<Pin<Box<dyn Stream<Item = Response> + Send + 'a>>> {
        None
    }
}
