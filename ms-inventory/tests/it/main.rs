//! ms-inventory against real servers: a database and a vhost for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;
mod catalogue;
mod catalogue_cost;
mod catalogue_import;
mod catalogue_pages;
mod catalogue_seed;
mod client;
#[path = "../../../crates/graphql/tests/it/committed.rs"]
mod committed;
mod crashes;
mod forecasts;
mod graphql_client;
mod graphql_schema;
mod graphql_statements;
mod graphql_values;
mod holds;
mod ledger;
mod locked;
mod messages;
mod networks;
mod relay;
mod repetitions;
mod settling;
mod standby;
mod strangers;
mod undelivered;
mod world;
