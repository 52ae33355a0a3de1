//! How a service starts, reports and stops; the same for all of them.
//!
//! [`config`] reads what it is told, [`demo`] keeps demo secrets out of production, [`telemetry`] says what it does,
//! [`health`] watches what it needs, [`http`] serves, [`client`] says whom, [`neighbour`] asks another service,
//! [`shutdown`] ends it in order, [`service`] puts it together, and [`stack`] keeps a hostile message from ending it.
//! Whatever is linked with this crate uses [`allocator`].

mod allocator;
pub mod client;
pub mod config;
pub mod demo;
pub mod health;
pub mod http;
pub mod neighbour;
pub mod service;
pub mod shutdown;
pub mod stack;
pub mod telemetry;
