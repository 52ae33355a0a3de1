//! A day of full load, as far as tables are concerned.

mod sample;

use std::time::Duration;

use anyhow::Result;

use self::sample::Sample;
use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Load, Mix, Pace};
use crate::report::{Row, Section, Spread, Target};

/// The most samples that are shown.
const SHOWN: usize = 12;

/// 1 000 in flight until so many orders are answered, with a sample each 10 s.
pub async fn run(ground: &Ground, effort: Effort, orders: u64) -> Result<Section> {
    let mut side = Side::inventory(ground, effort, 1).await?;
    let load = Load {
        pace: Pace::Closed { in_flight: 1_000 },
        mix: Mix::Spread,
        warm_up: Duration::ZERO,
        length: effort.length * 2,
    };
    let mut samples = Vec::new();
    while side.client.reserved() < orders {
        let measured = side.measure_load(&load).await?;
        samples.push(Sample::take(&side, &measured)?);
    }
    side.verify()?;
    let last = &samples[samples.len() - 1];
    let stock_mib = last.stock_mib;
    let dead = format!("{} dead rows, {} runs of autovacuum", last.stock_dead, last.stock_vacuums);
    let about = format!(
        "1 000 in flight until {} orders were answered, sampled each {:.0} s.\n\n{}",
        side.client.reserved(),
        load.length.as_secs_f64(),
        sample::table(&shown(&samples)),
    );
    let rows = vec![
        flat(&samples),
        figures::alone("stock and its index at the end, MiB", stock_mib, None, dead),
        figures::memory(side.peak_memory_mib()?),
    ];
    Ok(Section { title: "soak", about, rows })
}

/// Whether the last tenth was as fast as the first.
fn flat(samples: &[Sample]) -> Row {
    let tenth = samples.len().div_ceil(10);
    let rate = |part: &[Sample]| Spread::of(part.iter().map(|sample| sample.per_second));
    let (first, last) = (rate(&samples[..tenth]), rate(&samples[samples.len() - tenth..]));
    Row {
        what: "last tenth, orders/s, compared with the first".into(),
        ratio: Spread::of([last.median / first.median]),
        target: Some(Target::AtLeast(0.9)),
        ours: format!("{last:.0}"),
        theirs: format!("{first:.0}"),
        details: String::new(),
    }
}

/// The first, the last, and some between that lie equally far apart.
fn shown(samples: &[Sample]) -> Vec<&Sample> {
    let count = samples.len().min(SHOWN);
    (0..count).map(|number| &samples[number * (samples.len() - 1) / (count - 1).max(1)]).collect()
}
