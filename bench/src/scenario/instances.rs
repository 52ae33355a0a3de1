//! Two instances together.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, Pace};
use crate::report::{Section, Target};

/// Two instances, in turn with one.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let mut one = Side::inventory(ground, effort, 1).await?;
    let mut two = Side::inventory(ground, effort, 2).await?;
    let mut rows = Vec::new();
    for in_flight in [100, 1_000] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            theirs.push(one.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
            ours.push(two.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
        }
        let what = format!("two instances, {in_flight} in flight, orders/s");
        rows.push(figures::rates(what, &ours, &theirs, Some(Target::AtLeast(1.0))));
    }
    one.verify()?;
    two.verify()?;
    let about = "Two instances on one database and one queue, compared with one; all on the same machine.";
    Ok(Section { title: "instances", about: about.into(), rows })
}
