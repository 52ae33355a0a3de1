//! What is measured, one file a scenario.

pub mod backlog;
pub mod hot;
pub mod instances;
pub mod latency;
pub mod orders;
pub mod overload;
pub mod paid;
pub mod reads;
pub mod rejections;
pub mod size;
pub mod soak;
pub mod throughput;

mod catalogue;
mod figures;
mod service;
mod side;
