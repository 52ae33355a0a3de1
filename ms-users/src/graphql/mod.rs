//! Accounts as people see and change them at `/graphql`.

mod account;
mod context;
mod error;
mod mutation;
mod query;

use ::graphql::Limits;
use async_graphql::{EmptySubscription, Schema, SchemaBuilder};
use axum::Router;
use boot::database::Database;

use crate::config::Config;
use crate::password::Hasher;
use crate::signing::Signing;
use crate::throttle::Throttle;

pub use mutation::Mutation;
pub use query::Query;

/// The schema, without what its resolvers need.
pub fn schema() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query, Mutation, EmptySubscription)
}

/// Serves the schema.
///
/// # Errors
/// When the machine has no randomness to give.
pub fn router(database: &Database, signing: &Signing, config: &Config) -> anyhow::Result<Router> {
    let schema = schema()
        .data(Hasher::new(config.login.password_hashes_at_once)?)
        .data(Throttle::new(config.login.logins_per_minute))
        .data(signing.clone())
        .data(database.requests.clone())
        .data(config.login.clone());
    Ok(::graphql::router(
        schema,
        Limits { cost_per_second: config.process.http.rate_limit_cost_per_second, ..Limits::default() },
    ))
}
