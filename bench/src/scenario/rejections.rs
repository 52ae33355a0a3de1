//! Orders that get nothing, and orders that come twice.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, Pace};
use crate::report::{Section, Target};

const PACE: Pace = Pace::Closed { in_flight: 100 };

/// A sold-out product in every order, and every order twice, in turn with orders that get what they want.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let mut side = Side::inventory(ground, effort, 1).await?;
    let (mut spread, mut sold_out, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        spread.push(side.measure(PACE, Mix::Spread).await?);
        sold_out.push(side.measure(PACE, Mix::SoldOut).await?);
        twice.push(side.measure(PACE, Mix::Twice).await?);
    }
    side.verify()?;
    let target = Some(Target::AtLeast(0.95));
    let rows = vec![
        figures::rates("a sold-out product in each order, orders/s".into(), &sold_out, &spread, target),
        figures::rates("each order sent twice, messages/s".into(), &twice, &spread, None),
    ];
    let about = "Rejections and duplicates, compared with orders that all get their stock, 100 in flight.";
    Ok(Section { title: "rejections", about: about.into(), rows })
}
