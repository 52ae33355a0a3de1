//! `cargo dev`: private PostgreSQL and RabbitMQ for running, testing and breaking the services.
//!
//! The library is what the tests use, the program what a person types, and both start, stop and clean up servers the
//! same way: every child process has a record on disk ([`process`]), and whoever stops something, be it Ctrl-C,
//! `cargo dev down` or the next start after a crash, stops what the records name.
//!
//! **Architecture invariant:** nothing here is asynchronous and nothing depends on the services, so that on a fresh
//! clone this crate compiles in seconds and can show progress while the rest builds.

pub mod testing;

pub mod status;
pub mod up;

pub mod advisories;
pub mod bench;
pub mod check;
pub mod dependencies;
pub mod fuzz;
pub mod mutants;
pub mod npm_audit;
pub mod queries;
pub mod tally;

pub mod accounts;
pub mod instance;
pub mod logins;
pub mod playground;
pub mod services;

pub mod postgres;
pub mod psql;
pub mod rabbitmq;
pub mod servers;
pub mod tls;

pub mod fingerprint;
pub mod install;
pub mod interrupt;
pub mod log;
pub mod management;
pub mod ports;
pub mod process;
pub mod process_table;
pub mod progress;
pub mod proxy;
pub mod workspace;
