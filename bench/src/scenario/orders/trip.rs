use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use hdrhistogram::Histogram;

use super::shop::Shop;
use super::{CUSTOMERS, WARM_UP, request};
use crate::Effort;
use crate::http::{Load, Pace};
use crate::report::{Row, Spread, Target};

const PER_SECOND: f64 = 1_000.0;

/// The whole trip, open loop: from when a request was due until its order was CONFIRMED.
///
/// Nobody asks meanwhile. Afterwards the orders' timelines say when each was confirmed, on the clock of the same
/// machine; an order names its request, whose number says when it was due. The time in the timeline is that at which
/// the transaction that confirmed it began, so what is left out are its two statements and its commit.
pub(super) async fn run(shop: &Shop, effort: Effort) -> Result<Row> {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    let mut answers = Vec::new();
    for round in 0..effort.rounds {
        let run = format!("trip{round}");
        let load = Load {
            url: format!("{}/graphql", shop.url()),
            connections: CUSTOMERS,
            pace: Pace::PerSecond(PER_SECOND),
            warm_up: WARM_UP,
            length: effort.length,
            token: shop.token()?,
        };
        let (begun, accepted) = (Arc::new(OnceLock::new()), shop.accepted());
        let (begins, name) = (begun.clone(), run.clone());
        // The first request is due at once: the others are due so much later than it is sent.
        let body = move |number| {
            begins.get_or_init(|| SystemTime::now().into());
            request::body(&name, number)
        };
        let check = move |_, answer: &str| {
            accepted.fetch_add(1, Ordering::Relaxed);
            request::check(answer)
        };
        answers.push(load.run(body, check).await?.percentile(99.0).as_secs_f64() * 1000.0);
        shop.published().await?;
        shop.settled().await?;
        let begun = begun.get().context("nothing was sent")?;
        let trips = trips(shop, &run, *begun).await?;
        p50.push(trips.value_at_percentile(50.0) as f64 / 1000.0);
        p99.push(trips.value_at_percentile(99.0) as f64 / 1000.0);
    }
    Ok(Row {
        what: format!("createOrder to CONFIRMED at {PER_SECOND:.0} orders/s, p99 in ms"),
        ratio: Spread::of(p99),
        target: Some(Target::AtMost(100.0)),
        ours: format!("p50 {:.1}", Spread::of(p50)),
        theirs: String::new(),
        details: format!("createOrder itself p99 {:.1} ms", Spread::of(answers)),
    })
}

/// How long each trip took that began after the warm-up, in microseconds.
async fn trips(shop: &Shop, run: &str, begun: DateTime<Utc>) -> Result<Histogram<u64>> {
    let confirmed: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "select payment_reference, at
         from orders
         join order_steps on order_steps.order_id = orders.id and order_steps.status = 'confirmed'
         where payment_reference like $1 || '-%'",
    )
    .bind(run)
    .fetch_all(shop.database())
    .await?;
    let mut trips = Histogram::new(3)?;
    for (reference, at) in confirmed {
        let number: f64 = reference.rsplit('-').next().context("no number")?.parse()?;
        let due = Duration::from_secs_f64(number / PER_SECOND);
        if due >= WARM_UP {
            let took = at - begun - TimeDelta::from_std(due)?;
            trips.record(took.num_microseconds().unwrap_or_default().max(1).cast_unsigned())?;
        }
    }
    ensure!(!trips.is_empty(), "no trip was measured");
    Ok(trips)
}
