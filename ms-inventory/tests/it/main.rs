//! ms-inventory against real servers: a database and a vhost for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod crashes;
mod holds;
mod messages;
mod world;
