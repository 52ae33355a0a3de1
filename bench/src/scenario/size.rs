//! A database that has seen years of orders, against an empty one.

mod history;

use anyhow::Result;
use dev::progress::Progress;
use dev::psql;

pub use self::history::History;
use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, PRODUCTS, Pace};
use crate::report::{Section, Target};

const PACE: Pace = Pace::Closed { in_flight: 100 };

/// Stored holds and many products, in turn with an empty database.
pub async fn run(ground: &Ground, effort: Effort, history: History) -> Result<Section> {
    let mut empty = Side::inventory(ground, effort, 1).await?;
    let mut full = Side::without_products(ground, effort, 1).await?;
    let History { holds, products } = history;
    let step = Progress::new().step(&format!("storing {holds} holds"));
    history.store(full.service.database_url()?)?;
    step.done(&format!("{holds} holds and {products} products stored"));
    let mix = [("the same 100 products", Mix::Among(PRODUCTS)), ("all products", Mix::Among(products))];
    let mut rows = Vec::new();
    for (which, mix) in mix {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            theirs.push(empty.measure(PACE, Mix::Spread).await?);
            ours.push(full.measure(PACE, mix).await?);
        }
        let what = format!("orders of {which}, orders/s");
        rows.push(figures::rates(what, &ours, &theirs, Some(Target::AtLeast(0.90))));
    }
    empty.verify()?;
    full.verify()?;
    let size = "select pg_size_pretty(pg_database_size(current_database()))";
    let about = format!(
        "{holds} stored holds and {products} products ({}), compared with no holds and 100 products; 100 in flight.",
        psql::execute(full.service.database_url()?, &[size])?
    );
    rows.push(figures::memory(full.peak_memory_mib()?));
    Ok(Section { title: "size", about, rows })
}
