//! Orders that come paid, as from a shop that charges first: sold in one step, with a movement in the ledger for each line.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, Pace};
use crate::report::Section;

/// Orders that are sold at once, in turn with orders that are only held.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let mut side = Side::inventory(ground, effort, 1).await?;
    let mut rows = Vec::new();
    for in_flight in [100, 1_000] {
        let (mut paid, mut held) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            held.push(side.measure(Pace::Closed { in_flight }, Mix::Spread).await?);
            paid.push(side.measure(Pace::Closed { in_flight }, Mix::Paid).await?);
        }
        rows.push(figures::rates(format!("sold at once, {in_flight} in flight, orders/s"), &paid, &held, None));
    }
    side.verify()?;
    let about = "OrderCompleted of orders nobody has heard of, compared with OrderCreated: stock leaves, and each line is \
                 booked as a movement.";
    Ok(Section { title: "paid", about: about.into(), rows })
}
