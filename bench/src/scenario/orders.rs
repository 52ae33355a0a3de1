//! createOrder: durable, published and brought on, against the same HTTP server with nothing behind it.

mod constant;
mod request;
mod shop;
mod trip;

use std::time::Duration;

use anyhow::{Result, bail};

use self::constant::Constant;
use self::shop::{Placed, Shop};
use super::side::TRIES;
use crate::Effort;
use crate::ground::Ground;
use crate::http::{Load, Measured, Pace};
use crate::report::{Row, Section, Spread, Target};

pub use constant::serve as serve_constant;

/// Customers at once.
const CUSTOMERS: usize = 64;

/// Sent before counting begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// createOrder of two lines by 64 customers, in turn with the constant; then the whole trip at a fixed rate.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let shop = Shop::open(ground).await?;
    let constant = Constant::start(ground)?;
    let token = shop.token()?;
    let load = |url: &str| Load {
        url: format!("{url}/graphql"),
        token: token.clone(),
        connections: CUSTOMERS,
        pace: Pace::Answered,
        warm_up: WARM_UP,
        length: effort.length,
    };
    let (mut whole, mut alone, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        theirs.push(constant.measure(load(constant.url())).await?);
        whole.push(quiet(ground, effort, || shop.measure(load(shop.url()))).await?);
        alone.push(quiet(ground, effort, || shop.measure_alone(load(shop.url()))).await?);
    }
    let mut rows = vec![
        row("createOrder, 64 customers, orders/s", &whole, &theirs, Some(Target::AtLeast(0.5))),
        row("the same while inventory is frozen: stored and published", &alone, &theirs, None),
    ];
    rows.push(trip::run(&shop, effort).await?);
    shop.verify().await?;
    let about = "createOrder with two lines over GraphQL, each order stored, published and confirmed by ms-inventory on \
                 the same machine, compared with a constant mutation of the same shape behind the same HTTP server.";
    Ok(Section { title: "orders", about: about.into(), rows })
}

/// Measures again if something else used the machine meanwhile.
async fn quiet<F: Future<Output = Result<Placed>>>(
    ground: &Ground,
    effort: Effort,
    measure: impl Fn() -> F,
) -> Result<Placed> {
    for _ in 0..TRIES {
        let placed = measure().await?;
        if !ground.voids().is_void(&placed.used, effort) {
            return Ok(placed);
        }
    }
    bail!("the machine is busy with something else")
}

fn row(what: &str, ours: &[Placed], theirs: &[Measured], target: Option<Target>) -> Row {
    let rates = |runs: &mut dyn Iterator<Item = f64>| format!("{:.0}", Spread::of(runs));
    let outbox = Spread::of(ours.iter().map(|run| run.published_after.as_secs_f64()));
    let settled = Spread::of(ours.iter().map(|run| run.settled_after.as_secs_f64()));
    Row {
        what: what.into(),
        ratio: Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.http.per_second / theirs.per_second)),
        target,
        ours: rates(&mut ours.iter().map(|run| run.http.per_second)),
        theirs: rates(&mut theirs.iter().map(|run| run.per_second)),
        details: format!(
            "{}; constant: {}; after the last answer the outbox is empty in {outbox:.1} s, all orders are confirmed in \
             {settled:.1} s; CPU ms per order: {}",
            latencies(&ours.iter().map(|run| &run.http).collect::<Vec<_>>()),
            latencies(&theirs.iter().collect::<Vec<_>>()),
            middle(ours).cost
        ),
    }
}

fn latencies(runs: &[&Measured]) -> String {
    let at = |percent| Spread::of(runs.iter().map(|run| run.percentile(percent).as_secs_f64() * 1000.0)).median;
    format!("p50 {:.1} ms, p99 {:.1} ms", at(50.0), at(99.0))
}

/// The run with the rate in the middle.
fn middle(runs: &[Placed]) -> &Placed {
    let mut sorted: Vec<&Placed> = runs.iter().collect();
    sorted.sort_by(|a, b| a.http.per_second.total_cmp(&b.http.per_second));
    sorted[sorted.len() / 2]
}
