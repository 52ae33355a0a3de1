//! Accounts as people see and change them at `/graphql`.

mod account;
mod context;
mod error;
mod mutation;
mod query;

use ::graphql::Limits;
use async_graphql::{EmptySubscription, Schema, SchemaBuilder};
use axum::Router;
use database::Database;

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
pub fn router(database: &Database, signing: &Signing, hasher: &Hasher, config: &Config) -> Router {
    let schema = schema()
        .data(hasher.clone())
        .data(Throttle::new(config.login.logins_per_minute))
        .data(signing.clone())
        .data(database.requests.clone())
        .data(config.login.clone());
    let http = &config.process.http;
    let (request_timeout, cost_per_second) = (http.request_timeout(), http.rate_limit_cost_per_second);
    ::graphql::router(schema, Limits { request_timeout, cost_per_second, ..Limits::default() })
}
