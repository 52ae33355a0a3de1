//! What must hold of every parser of outside input, whatever comes: one function over bytes for each, which panics where
//! it does not hold.
//!
//! `cargo dev test --fuzz` hands them inputs that libFuzzer makes up, led by what of the code they reach. `cargo dev test`
//! hands them the seeds and random bytes, so that they do not rot. `cargo run --package fuzz -- TARGET FILE` hands one a
//! file, such as one that libFuzzer has written.
//!
//! In reading order: [`event`] is what comes from the broker, [`request`] what comes over HTTP, [`token`] who says
//! that they ask, [`value`] what stands in there.

pub mod event;
pub mod request;
pub mod token;
pub mod value;

/// One parser. `dev::fuzz` has the seeds of each, by its name.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As it is called on the command line.
    pub name: &'static str,
    /// Panics where something does not hold of this input.
    pub run: fn(&[u8]),
}

/// All there are.
pub const TARGETS: [Target; 18] = [
    Target { name: "order-events", run: event::order },
    Target { name: "stock-events", run: event::stock },
    Target { name: "product-events", run: event::product },
    Target { name: "inventory-requests", run: request::inventory_body },
    Target { name: "orders-requests", run: request::orders_body },
    Target { name: "inventory-documents", run: request::inventory_document },
    Target { name: "orders-documents", run: request::orders_document },
    Target { name: "query-strings", run: request::query_string },
    Target { name: "headers", run: request::headers },
    Target { name: "order-ids", run: value::order_id },
    Target { name: "traces", run: value::trace },
    Target { name: "cursors", run: value::cursor },
    Target { name: "ids", run: value::id },
    Target { name: "prices", run: value::price },
    Target { name: "tokens", run: token::token },
    Target { name: "claims", run: token::claims },
    Target { name: "key-sets", run: token::key_set },
    Target { name: "emails", run: token::email },
];

impl Target {
    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }
}
