//! Runs of both sides, put into words.

use crate::load::Measured;
use crate::report::{Row, Spread, Target};

/// A row of orders per second, compared run by run.
pub(super) fn rates(what: String, ours: &[Measured], theirs: &[Measured], target: Option<Target>) -> Row {
    Row {
        what,
        ratio: Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.per_second / theirs.per_second)),
        target,
        ours: rate(ours),
        theirs: rate(theirs),
        details: format!("{}; compared with: {}", cost(ours), cost(theirs)),
    }
}

/// A row of a quantile of the latency, compared run by run.
pub(super) fn latencies(what: String, quantile: f64, ours: &[Measured], theirs: &[Measured], target: Target) -> Row {
    let pairs = ours.iter().zip(theirs);
    Row {
        what,
        ratio: Spread::of(pairs.map(|(ours, theirs)| ours.latency_ms(quantile) / theirs.latency_ms(quantile))),
        target: Some(target),
        ours: latency(ours, quantile),
        theirs: latency(theirs, quantile),
        details: String::new(),
    }
}

/// A row of a figure that is judged by itself.
pub(super) fn alone(what: &str, figure: f64, target: Option<Target>, details: String) -> Row {
    let ratio = Spread::of([figure]);
    Row { what: what.into(), ratio, target, ours: format!("{figure:.1}"), theirs: String::new(), details }
}

/// A row of the most memory an instance of ms-inventory had.
pub(super) fn memory(peak_mib: f64) -> Row {
    alone("peak memory of ms-inventory, MiB", peak_mib, Some(Target::AtMost(64.0)), String::new())
}

/// `9120 (8990–9200)`
pub(super) fn rate(runs: &[Measured]) -> String {
    format!("{:.0}", Spread::of(runs.iter().map(|run| run.per_second)))
}

/// A quantile in milliseconds.
pub(super) fn latency(runs: &[Measured], quantile: f64) -> String {
    format!("{:.2}", Spread::of(runs.iter().map(|run| run.latency_ms(quantile))))
}

/// Latency and processor time per order, of the run in the middle.
pub(super) fn cost(runs: &[Measured]) -> String {
    let mut sorted: Vec<&Measured> = runs.iter().collect();
    sorted.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = sorted[sorted.len() / 2];
    let (p50, p99) = (middle.latency_ms(0.5), middle.latency_ms(0.99));
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, {}", middle.cost())
}
