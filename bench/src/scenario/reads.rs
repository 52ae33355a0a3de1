//! A page of products: ours by GraphQL, against the same SQL without it, and against Mercurius.

mod core;
mod mercurius;
mod pages;
mod plain;

use std::time::Duration;

use anyhow::{Result, bail};
use dev::psql;

use self::core::held_to_one_core;
use self::pages::Pages;
use crate::Effort;
use crate::ground::{Ground, Voids};
use crate::http::{Load, Measured, Pace};
use crate::machine::{Used, Watch};
use crate::report::{Row, Section, Spread, Target};

pub use plain::serve as serve_plain;

/// Customers at once.
const CONNECTIONS: usize = 32;

/// How long each side is asked before anything counts, so that all its statements are prepared and its code is hot.
const WARM_UP: Duration = Duration::from_secs(3);

/// How often a measurement is tried before the machine is said to be too busy for any.
const TRIES: usize = 5;

/// The three sides in turn, each held to one core, on pages all over the catalogue.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let (database_url, amqp_url) = (ground.database("inventory")?, ground.vhost("reads")?);
    let environment = [("INVENTORY_DATABASE_URL", database_url.as_str()), ("AMQP_URL", amqp_url.as_str())];
    let service = held_to_one_core(|| ground.serve("ms-inventory", "inventory", &environment))?;
    fill(&database_url)?;
    let plain = plain::start(ground, &database_url)?;
    let mercurius = mercurius::start(ground, &database_url)?;

    let watch = |pid| Watch::new().and("database", ground.postgres().pid()).and("service", pid);
    let sides = [
        Side { url: format!("{}/graphql", service.url()), watch: watch(service.pid()) },
        Side { url: plain.url.clone(), watch: watch(plain.process.pid()) },
        Side { url: mercurius.url.clone(), watch: watch(mercurius.process.pid()) },
    ];
    for side in &sides {
        side.ask(WARM_UP).await?;
    }
    let mut runs = [(); 3].map(|()| Vec::new());
    for _ in 0..effort.rounds {
        for (side, runs) in sides.iter().zip(&mut runs) {
            runs.push(side.measure(effort, ground.voids()).await?);
        }
    }
    let [ours, plain, mercurius] = runs;
    let rows = vec![
        row("over the same SQL without GraphQL, requests/s", &ours, &plain, Target::AtLeast(0.7)),
        row("over Mercurius with its JIT, requests/s", &ours, &mercurius, Target::AtLeast(1.5)),
    ];
    let about = format!(
        "`products(first: {})` with name, price and stock at cursors all over {} products, {CONNECTIONS} connections, \
         each server held to one core.",
        pages::PAGE,
        pages::PRODUCTS
    );
    Ok(Section { title: "reads", about, rows })
}

/// A catalogue whose names tell which product is which.
fn fill(database_url: &str) -> Result<()> {
    let products = pages::PRODUCTS;
    psql::execute(
        database_url,
        &[
            &format!(
                "insert into products (id, sku, name, description, price) overriding system value
                 select id, 'SKU-' || id, 'Product ' || id, repeat('Made to last. ', 5), id % 10000 / 100.0
                 from generate_series(1, {products}) as id"
            ),
            &format!(
                "insert into stock (product_id, on_hand) select id, id % 1000 from generate_series(1, {products}) as id"
            ),
            "vacuum analyze",
        ],
    )?;
    Ok(())
}

/// A server, and whose use of the processors is told apart.
struct Side {
    url: String,
    watch: Watch,
}

struct Run {
    http: Measured,
    used: Used,
}

impl Side {
    async fn ask(&self, length: Duration) -> Result<Measured> {
        let url = self.url.clone();
        let load =
            Load { url, connections: CONNECTIONS, pace: Pace::Answered, warm_up: Duration::ZERO, length, token: None };
        let pages = Pages;
        load.run(move |number| pages.body(number), move |number, answer| pages.check(number, answer)).await
    }

    /// Asks for as long as was wanted, again if something else used the machine meanwhile.
    async fn measure(&self, effort: Effort, voids: &Voids) -> Result<Run> {
        for _ in 0..TRIES {
            let before = self.watch.look()?;
            let http = self.ask(effort.length).await?;
            let used = before.until(&self.watch.look()?);
            if !voids.is_void(&used, effort) {
                return Ok(Run { http, used });
            }
        }
        bail!("the machine is busy with something else")
    }
}

fn row(what: &str, ours: &[Run], theirs: &[Run], target: Target) -> Row {
    let rate = |runs: &[Run]| format!("{:.0}", Spread::of(runs.iter().map(|run| run.http.per_second)));
    Row {
        what: what.into(),
        ratio: Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.http.per_second / theirs.http.per_second)),
        target: Some(target),
        ours: rate(ours),
        theirs: rate(theirs),
        details: format!("{}; theirs: {}", cost(ours), cost(theirs)),
    }
}

/// Medians of latency and of processor time per request.
fn cost(runs: &[Run]) -> String {
    let median = |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(of)).median;
    let latency = |percent| median(&|run| run.http.percentile(percent).as_secs_f64() * 1e3);
    let used = |group| median(&|run| run.used.of(group) * run.used.seconds * 1e6 / run.http.answers as f64);
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, CPU µs per request: service {:.0}, database {:.0}, load {:.0}",
        latency(50.0),
        latency(99.0),
        used("service"),
        used("database"),
        used("load")
    )
}
