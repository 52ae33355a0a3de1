//! Orders that wait when the service starts.

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use super::figures;
use super::side::{Side, TRIES};
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Measured, Mix};
use crate::report::{Section, Target};

/// Orders that wait when the service starts, drained in turn with the echo.
pub async fn run(ground: &Ground, effort: Effort, orders: usize) -> Result<Section> {
    let mut echo = Side::echo(ground, effort).await?;
    let mut inventory = Side::inventory(ground, effort, 1).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        theirs.push(drain(ground, &mut echo, orders).await?);
        ours.push(drain(ground, &mut inventory, orders).await?);
    }
    inventory.verify()?;
    let mut rate = figures::rates("backlog drained, orders/s".into(), &ours, &theirs, Some(Target::AtLeast(0.90)));
    // How long an order waited tells only how long the backlog was.
    rate.details = format!("{}; compared with: {}", ours[0].cost(), theirs[0].cost());
    let about = format!(
        "{orders} orders wait in the queue before the service starts; counted from the first answer to the last, \
         compared with the echo."
    );
    let rows = vec![rate, figures::memory(inventory.peak_memory_mib()?)];
    Ok(Section { title: "backlog", about, rows })
}

/// Stops the service, piles orders up, starts it, and waits until each is answered.
async fn drain(ground: &Ground, side: &mut Side, orders: usize) -> Result<Measured> {
    for _ in 0..TRIES {
        side.service.stop()?;
        let mut run = side.client.begin(Mix::Spread)?;
        run.pile_up(orders).await?;
        side.service.start(ground)?;
        side.watch = side.service.watch(ground);
        let before = side.watch.look()?;
        let told = run.finish().await?;
        let used = before.until(&side.watch.look()?);
        if !side.is_void(&used) {
            return Ok(Measured {
                per_second: orders as f64 / told.time.as_secs_f64(),
                answered: orders as u64,
                latency: Histogram::new(3)?,
                reserved: told.reserved,
                rejected: told.rejected,
                used,
            });
        }
    }
    bail!("the machine is busy with something else")
}
