//! ms-orders against real servers: a database and a vhost for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../crates/graphql/tests/it/committed.rs"]
mod committed;
mod inventory;
mod statements;
mod till;
mod unpaid;
mod world;

mod catalogue;
mod crashes;
mod ending;
mod fills;
mod listing;
mod old_snapshots;
mod outcomes;
mod overdue;
mod payments;
mod placing;
mod refusals;
mod rights;
mod schema;
mod starting;
