//! What only shows with all services together, run as a person runs them: the built programs, each a process.
//!
//! `cargo dev test` builds the programs; `cargo test -p e2e` runs on those that were built last.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attempts;
#[path = "../../../crates/boot/tests/it/authority.rs"]
mod authority;
mod load;
mod permit;
mod service;
mod shop;

mod browser;
mod containers;
mod documents;
mod edge;
mod faults;
mod health;
mod hostile;
mod interleavings;
mod lifecycle;
mod logins;
mod outages;
mod rights;
mod secrets;
mod settings;
mod spine;
mod test_events;
mod tls;
mod tools;
