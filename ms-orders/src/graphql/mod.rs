//! What people see of orders: GraphQL at `/graphql`.

mod error;
mod loaders;
mod mutation;
mod query;
mod types;

use async_graphql::dataloader::DataLoader;
use async_graphql::{EmptySubscription, Schema, SchemaBuilder};
use axum::Router;
use boot::config::Http;
use database::Pool;
use graphql::Limits;
use messaging::outbox::Relay;

use crate::config::Shop;
use crate::till::Till;

pub use mutation::Mutation;
pub use query::Query;

/// The schema, without what its resolvers need.
pub fn schema() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query, Mutation, EmptySubscription)
}

/// Serves the schema.
pub fn router(pool: Pool, relay: &Relay, shop: Shop, http: &Http) -> Router {
    let schema = schema()
        .data(DataLoader::new(loaders::Lines(pool.clone()), tokio::spawn))
        .data(DataLoader::new(loaders::Steps(pool.clone()), tokio::spawn))
        .data(DataLoader::new(loaders::Payments(pool.clone()), tokio::spawn))
        .data(Till::open(&pool, relay, &shop))
        .data(relay.clone())
        .data(pool)
        .data(shop);
    let (request_timeout, cost_per_second) = (http.request_timeout(), http.rate_limit_cost_per_second);
    graphql::router(schema, Limits { request_timeout, cost_per_second, ..Limits::default() })
}
