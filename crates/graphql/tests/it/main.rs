//! The door, over real HTTP, in front of a schema that has one of everything it must handle.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

mod audits;
mod cost;
mod documents;
mod errors;
mod http;
mod playground;
mod ready;
mod schema;
mod server;
mod values;
