//! How many orders a second.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::chart::{Chart, Level};
use crate::ground::Ground;
use crate::load::{Mix, Pace};
use crate::report::{Section, Spread, Target};

/// Orders in flight, and what part of the echo's rate is wanted.
const LEVELS: [(usize, Option<Target>); 3] =
    [(1, None), (100, Some(Target::AtLeast(0.90))), (1_000, Some(Target::AtLeast(0.95)))];

/// 1, 100 and 1 000 orders in flight, in turn with the echo.
pub async fn run(ground: &Ground, effort: Effort) -> Result<(Section, Chart)> {
    let mut echo = Side::echo(ground, effort).await?;
    let mut dressed = Side::echo_with_properties(ground, effort).await?;
    let mut inventory = Side::inventory(ground, effort, 1).await?;
    let (mut rows, mut levels) = (Vec::new(), Vec::new());
    for (in_flight, target) in LEVELS {
        let (mut ours, mut theirs, mut with_properties) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            theirs.push(echo.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
            ours.push(inventory.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
            with_properties.push(dressed.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
        }
        let row = figures::rates(format!("{in_flight} in flight, orders/s"), &ours, &theirs, target);
        let ratio = row.ratio;
        rows.push(row);
        let what = format!("{in_flight} in flight, against an echo of messages with our properties");
        rows.push(figures::rates(what, &ours, &with_properties, None));
        if in_flight == 1 {
            let what = "1 in flight, p50 in ms".into();
            rows.push(figures::latencies(what, 0.5, &ours, &theirs, Target::AtMost(2.5)));
        }
        let [ours, echo] = [&ours, &theirs].map(|runs| Spread::of(runs.iter().map(|run| run.per_second)));
        levels.push(Level { in_flight, ours, echo, ratio });
    }
    inventory.verify()?;
    rows.push(figures::memory(inventory.peak_memory_mib()?));
    let about = "Two lines an order, 100 products, compared with the echo.".into();
    Ok((Section { title: "throughput", about, rows }, Chart::Throughput(levels)))
}
