//! ms-users on a real database, as its clients see it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
#[path = "../../../crates/graphql/tests/it/committed.rs"]
mod committed;
mod guessing;
mod keys;
mod schema;
mod sessions;
mod world;
