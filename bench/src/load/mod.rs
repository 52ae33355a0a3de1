//! Orders sent as a shop sends them, and what is demanded of their answers.
//!
//! One task sends what is due and takes what has been answered. Latency counts from the moment an order was due,
//! not from when it could be sent, so that a stall is felt by every order that fell into it (no coordinated omission).

mod client;
mod run;

mod arrivals;
mod mix;
mod sent;

use std::time::Duration;

use hdrhistogram::Histogram;

pub use client::{Client, connect};
pub use mix::{Mix, PRODUCTS};
pub use run::{Run, Stretch, Told};

use crate::machine::Used;

/// The routing key of an answer that stock is held.
pub const RESERVED: &str = "stock.reserved";

/// When orders are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many unanswered at any time: the next goes out when one is answered.
    Closed {
        /// Unanswered orders.
        in_flight: usize,
    },
    /// At a rate that no answer changes, at random moments (Poisson).
    Open {
        /// Orders per second.
        per_second: f64,
    },
}

/// What is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// When.
    pub pace: Pace,
    /// What.
    pub mix: Mix,
    /// Sent before counting begins.
    pub warm_up: Duration,
    /// How long is counted.
    pub length: Duration,
}

/// What came of a [`Load`]. Every order sent was answered, each with one kind of outcome.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Orders answered per second while it was counted.
    pub per_second: f64,
    /// Answers while it was counted.
    pub answered: u64,
    /// From when an order was due to its answer, in microseconds, of the orders answered while it was counted.
    pub latency: Histogram<u64>,
    /// Orders held, in all of the run.
    pub reserved: u64,
    /// Orders rejected, in all of the run.
    pub rejected: u64,
    /// Who used the processors while it was counted.
    pub used: Used,
}

impl Measured {
    /// A quantile of the latency, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Processor time for each order, in milliseconds, by group; and how many processors the load itself took.
    pub fn cost(&self) -> String {
        let each = self.used.per(self.answered as f64);
        format!("CPU ms per order: {each}; load generator: {:.2} cores", self.used.of("load"))
    }
}
