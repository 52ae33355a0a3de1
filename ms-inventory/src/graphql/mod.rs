//! The catalogue, its stock and what is held of it, as people and programs see and change them at `/graphql`.
//!
//! [`query`] and [`mutation`] are the two roots; the other files are the nouns they speak of. A resolver is one hop from
//! the function that has the SQL.

mod connection;
mod edit;
mod error;
mod hold;
mod loader;
mod movement;
mod mutation;
mod price;
mod product;
mod query;

use ::graphql::Limits;
use async_graphql::{EmptySubscription, Schema, SchemaBuilder};
use axum::Router;
use boot::config::Http;
use database::Pool;
use messaging::outbox::Relay;

pub use mutation::Mutation;
pub use query::Query;

/// Room for an import of [`MAX_BATCH_ROWS`](crate::product::MAX_BATCH_ROWS) products of 800 bytes each.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Serves the schema at `/graphql`, and its playground.
pub fn router(pool: Pool, relay: Relay, http: &Http) -> Router {
    let limits = Limits {
        max_body_bytes: MAX_BODY_BYTES,
        request_timeout: http.request_timeout(),
        cost_per_second: http.rate_limit_cost_per_second,
        ..Limits::default()
    };
    let schema = schema().data(loader::products(pool.clone())).data(pool).data(relay);
    ::graphql::router(schema, limits)
}

/// The schema without the database behind it.
pub fn schema() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query, Mutation, EmptySubscription)
}

/// A number as GraphQL's `Int`, which has 32 bits: beyond them, where only an absurd order comes, the nearest one.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}
