//! ms-orders against real servers: a database and a vhost for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod inventory;
mod statements;
mod till;
mod world;

mod catalogue;
mod crashes;
mod listing;
mod outcomes;
mod placing;
mod reask;
mod refusals;
mod schema;
mod starting;
