//! How long an order waits, at rates that no answer changes.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::chart::{Chart, Latency};
use crate::ground::Ground;
use crate::load::{Measured, Mix, Pace};
use crate::report::{Section, Target};

/// Orders in flight at which the maximum is measured.
const SATURATED: Pace = Pace::Closed { in_flight: 1_000 };

/// Tenths of the maximum that are looked at.
const TENTHS: std::ops::RangeInclusive<u8> = 1..=10;

/// At rates that no answer changes, in turn with the echo at the same rates.
pub async fn run(ground: &Ground, effort: Effort) -> Result<(Section, Chart)> {
    let mut echo = Side::echo(ground, effort).await?;
    let mut inventory = Side::inventory(ground, effort, 1).await?;
    let maximum = inventory.measure(SATURATED, Mix::Spread).await?.per_second;
    let half = Pace::Open { per_second: maximum / 2.0 };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        theirs.push(echo.measure(half, Mix::Spread).await?);
        ours.push(inventory.measure(half, Mix::Spread).await?);
    }
    let mut sweep = Vec::new();
    for tenth in TENTHS {
        let per_second = maximum * f64::from(tenth) / 10.0;
        let pace = Pace::Open { per_second };
        let (theirs, ours) = (echo.measure(pace, Mix::Spread).await?, inventory.measure(pace, Mix::Spread).await?);
        sweep.push(Latency { per_second, ours: quantiles(&ours), echo: quantiles(&theirs) });
    }
    inventory.verify()?;
    let what = format!("p99 at {:.0} orders/s, ms", maximum / 2.0);
    let mut p99 = figures::latencies(what, 0.99, &ours, &theirs, Target::AtMost(4.0));
    p99.details = format!("{}; compared with: {}", figures::cost(&ours), figures::cost(&theirs));
    let about = format!(
        "Orders at random moments (Poisson) at half of {maximum:.0} orders/s, which is our maximum with 1 000 in flight; \
         latency counts from when an order was due. Compared with the echo at the same rate.\n\n{}",
        table(&sweep)
    );
    Ok((Section { title: "latency", about, rows: vec![p99] }, Chart::Latency(sweep)))
}

/// p50 and p99 in milliseconds.
fn quantiles(run: &Measured) -> (f64, f64) {
    (run.latency_ms(0.5), run.latency_ms(0.99))
}

fn table(sweep: &[Latency]) -> String {
    let line = |Latency { per_second, ours, echo }: &Latency| {
        format!("\n| {per_second:.0} | {:.1} / {:.1} | {:.1} / {:.1} |", ours.0, ours.1, echo.0, echo.1)
    };
    let head = "| orders/s | p50 / p99, ms | echo's p50 / p99, ms |\n|---|---|---|";
    sweep.iter().fold(head.to_owned(), |table, latency| table + &line(latency))
}
