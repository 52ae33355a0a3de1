//! One product that everybody wants.

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, Pace};
use crate::report::{Section, Target};

const PACE: Pace = Pace::Closed { in_flight: 100 };

/// One product in every order, in turn with any two of all products, for one instance and for two.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let mut rows = Vec::new();
    for instances in [1, 2] {
        let mut side = Side::inventory(ground, effort, instances).await?;
        let (mut spread, mut zipf, mut hot) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            spread.push(side.measure(PACE, Mix::Spread).await?);
            hot.push(side.measure(PACE, Mix::Hot).await?);
            zipf.push(side.measure(PACE, Mix::Zipf).await?);
        }
        side.verify()?;
        let with = if instances == 1 { "1 instance" } else { "2 instances" };
        let what = format!("one hot product, {with}, orders/s");
        rows.push(figures::rates(what, &hot, &spread, Some(Target::AtLeast(0.97))));
        rows.push(figures::rates(format!("skewed as sales are, {with}, orders/s"), &zipf, &spread, None));
    }
    let about =
        "The same product in each order, and by Zipf's law, compared with any two of 100 products, 100 in flight.";
    Ok(Section { title: "hot", about: about.into(), rows })
}
