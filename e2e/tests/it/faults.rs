//! Faults of connections, servers and processes at random, by seed: orders come in meanwhile, and once it is calm again
//! each of them has one outcome, and stock, orders and payments agree. docs/faults.md tells what is injected and checked.
//!
//! | variable | what it chooses |
//! |---|---|
//! | `FAULT_SEEDS` | how many seeds run, from 0 on; 12 by default, and 200 where the tests run that take long |
//! | `FAULT_SEED` | the only seed that runs |
//! | `FAULTS` | the names of faults, separated by commas: these and no others are injected, under every seed |
//! | `FAULT_SEEDS_AT_ONCE` | how many seeds run side by side; 2 by default |

mod broker;
mod checks;
mod inject;
mod load;
mod plan;
mod site;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dev::workspace;
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::broker::Broker;
use self::checks::{DeadLetters, Evidence, Logs, Stores, Violations, probe, settle};
use self::inject::Target;
use self::load::{Loaded, place, publish_one};
use self::plan::{Kind, Plan};
use self::site::Site;
use crate::service::{Api, eventually};

/// How long everything may take to settle once it is calm. The longest time-out that is waited for is a re-ask after a
/// message was lost twice.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// How long a new order may take then.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How long faults are injected at most: on a busy machine, where each takes longer, there must not be more of them.
const INJECTED_FOR: Duration = Duration::from_secs(60);

/// How long one seed may take.
const SEED_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How much there is of each product: of the first two enough for all, of the last for a few.
const ON_HAND: [i64; 4] = [100_000, 100_001, 300, 40];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_every_order_has_one_outcome_in_the_end() {
    run_seeds(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes 35 minutes"]
async fn whatever_breaks_under_many_seeds_every_order_has_one_outcome_in_the_end() {
    run_seeds(200).await;
}

async fn run_seeds(count: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FAULT_SEEDS").unwrap_or(count),
    };
    let at_once = usize::try_from(number("FAULT_SEEDS_AT_ONCE").unwrap_or(2)).unwrap();
    let only = std::env::var("FAULTS").ok().map(|names| Kind::parse_list(&names));
    let begun = Instant::now();
    let log = Log::create(&seeds);
    let plans = seeds.map(|seed| Plan::of(seed, only.as_deref()));
    let reports: Vec<Report> = futures::stream::iter(plans)
        .map(|plan| async {
            let report = run_caught(plan).await;
            log.write(&report);
            report
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    log.write(&summary(&reports, begun.elapsed()));
    let failed: Vec<u64> = reports.iter().filter(|report| report.failed()).map(|report| report.plan.seed).collect();
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}; FAULT_SEED=N runs one of them", failed.len());
}

/// Where a run writes down what came of each seed and of all together, because what a test prints is shown only when it fails.
struct Log(File);

impl Log {
    fn create(seeds: &Range<u64>) -> Self {
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        Self(File::create(folder.join(format!("seeds-{}-to-{}.md", seeds.start, seeds.end - 1))).unwrap())
    }

    fn write(&self, text: &impl Display) {
        println!("{text}");
        writeln!(&self.0, "{text}").unwrap();
    }
}

/// What a run leaves behind.
fn folder() -> PathBuf {
    workspace::target().unwrap().join("faults")
}

/// What came of a seed.
struct Report {
    plan: Plan,
    /// How often each kind of fault was injected.
    injected: BTreeMap<Kind, u64>,
    loaded: Loaded,
    poisoned: u64,
    reserved: usize,
    rejected: usize,
    dead_letters: DeadLetters,
    settled_after: Duration,
    took: Duration,
    violations: Violations,
}

impl Report {
    fn failed(&self) -> bool {
        !self.violations.0.is_empty()
    }
}

/// A panic under one seed is a violation of that seed, and the others go on.
async fn run_caught(plan: Plan) -> Report {
    let begun = Instant::now();
    let mut report = Report {
        plan: plan.clone(),
        injected: BTreeMap::new(),
        loaded: Loaded::default(),
        poisoned: 0,
        reserved: 0,
        rejected: 0,
        dead_letters: DeadLetters::default(),
        settled_after: Duration::ZERO,
        took: Duration::ZERO,
        violations: Violations::default(),
    };
    if AssertUnwindSafe(run(&plan, &mut report)).catch_unwind().await.is_err() {
        report.violations.add("the test itself failed", "see the panic above");
    }
    report.took = begun.elapsed();
    report
}

async fn run(plan: &Plan, report: &mut Report) {
    let logs = Logs::begin();
    let opening = plan.clone();
    let site = spawn_blocking(move || Site::open(&opening)).await.unwrap();
    let running = tokio::time::timeout(SEED_TIMEOUT, run_on(plan, &site, &logs, report));
    let checked = AssertUnwindSafe(running).catch_unwind().await;
    if matches!(checked, Ok(Err(_))) {
        report.violations.add("the seed does not end", format!("{} s", SEED_TIMEOUT.as_secs()));
    }
    if checked.is_err() || report.failed() {
        keep_logs(plan.seed, &site);
    }
    // Its databases and its vhost are dropped by blocking calls.
    spawn_blocking(move || drop(site)).await.unwrap();
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}

async fn run_on(plan: &Plan, site: &Site, logs: &Logs, report: &mut Report) {
    site.up().await;
    let broker = Broker::open(site.vhost.amqp_url()).await;
    let products = join_all(ON_HAND.iter().map(|on_hand| product(site, *on_hand))).await;
    let (stop, poisoned) = (CancellationToken::new(), AtomicU64::new(0));
    let target = Target { seed: plan.seed, site, broker: &broker, poisoned: &poisoned };

    let loading = async {
        let loaded = load::run(plan, &products, &broker, &site.orders).await;
        stop.cancel();
        loaded
    };
    let calm = stop.child_token();
    let calming = async {
        stop.run_until_cancelled(tokio::time::sleep(INJECTED_FOR)).await;
        calm.cancel();
    };
    let injecting = plan.kinds.iter().map(|kind| async { (*kind, target.inject(*kind, &calm).await) });
    let stores = Stores::open(site).await;
    let watching = stores.answered_before_commit(&broker, &stop);
    let (mut loaded, injected, uncommitted, ()) = futures::join!(loading, join_all(injecting), watching, calming);
    report.injected = injected.into_iter().collect();
    report.poisoned = poisoned.load(Ordering::Relaxed);

    let violations = &mut report.violations;
    for order in uncommitted {
        violations.add("an order was answered before its hold was committed", order);
    }
    if plan.kinds.contains(&Kind::DeletedExchange) {
        // The services may have been quicker than the test to bind their queues to the exchange of answers. Who has missed
        // an answer asks again, as ms-orders does.
        let answers = broker.answers();
        let missed = loaded.published.iter().filter(|order| !answers.contains_key(&order.id));
        join_all(missed.map(|order| publish_one(&broker, order))).await;
    }
    report.settled_after =
        settle(&stores, site, &broker, &loaded.published, report.poisoned, SETTLED_WITHIN, violations).await;
    probe_both(plan.seed, products[0], &broker, &site.orders, &mut loaded, violations).await;
    settle(&stores, site, &broker, &loaded.published, report.poisoned, SETTLED_WITHIN, violations).await;
    for process in site.drain().await {
        violations.add("a process does not drain", process);
    }
    let answers = broker.answers();
    report.reserved = answers.values().filter(|answer| !answer.reserved.is_empty()).count();
    report.rejected = answers.values().filter(|answer| answer.rejected > 0).count();
    let evidence = Evidence { plan, loaded: &loaded, answers, stores };
    report.dead_letters = evidence.check(site, &broker, violations).await;
    logs.check(site, violations);
    report.loaded = loaded;
}

/// After all that, new orders are answered in time, whichever way they come.
async fn probe_both(
    seed: u64,
    product: i64,
    broker: &Broker,
    orders: &Api,
    loaded: &mut Loaded,
    violations: &mut Violations,
) {
    let published = probe(seed, product);
    publish_one(broker, &published).await;
    let deadline = Instant::now() + ANSWERED_WITHIN;
    while !broker.answers().contains_key(&published.id) {
        if Instant::now() > deadline {
            violations.add("a new order is not answered in time", &published.id);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loaded.published.push(published);
    let items = json!([{"productId": product.to_string(), "quantity": 1}]);
    let input = json!({"input": {"items": items, "idempotencyKey": format!("{seed}-probe")}});
    match tokio::time::timeout(ANSWERED_WITHIN, place(orders, &input)).await {
        Ok(Some(id)) => loaded.placed.push(id),
        _ => violations.add("a new order is not answered in time", "createOrder"),
    }
}

/// A new product, of which ms-orders has heard.
async fn product(site: &Site, on_hand: i64) -> i64 {
    let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let input = json!({"sku": format!("F-{on_hand}"), "name": "Thing", "price": "1.25", "onHand": on_hand});
    let created = site.inventory.ask(create, json!({"input": input})).await;
    let id = created["id"].as_str().unwrap();
    let quote = "query($items: [ItemInput!]!) { quote(items: $items) { total } }";
    let items = json!({"items": [{"productId": id, "quantity": 1}]});
    let is_known = async || site.orders.send(quote, &items).await.is_ok_and(|answer| !answer["data"].is_null());
    eventually("orders knows the product", is_known).await;
    id.parse().unwrap()
}

/// Copies the logs of a seed that failed to `target/faults`.
fn keep_logs(seed: u64, site: &Site) {
    let folder = folder().join(format!("seed-{seed}"));
    let copied = std::fs::create_dir_all(&folder).and_then(|()| {
        for (number, log) in site.logs().iter().enumerate() {
            let name = log.file_name().map_or(Path::new("log"), Path::new);
            std::fs::copy(log, folder.join(format!("{number}-{}", name.display())))?;
        }
        Ok(())
    });
    match copied {
        Ok(()) => println!("the logs of seed {seed} are in {}", folder.display()),
        Err(error) => println!("the logs of seed {seed} are lost: {error}"),
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { plan, injected, loaded, poisoned, reserved, rejected, .. } = self;
        let DeadLetters { poison, at_delivery_limit, unheard } = self.dead_letters;
        let injected: Vec<String> = injected.iter().map(|(kind, count)| format!("{} × {count}", kind.name())).collect();
        let (outcome, injected) = (if self.failed() { "FAILED" } else { "ok" }, injected.join(", "));
        let (took, settled) = (self.took.as_secs_f32(), self.settled_after.as_secs_f32());
        writeln!(f, "seed {}: {outcome} after {took:.1} s, settled after {settled:.1} s; {injected}", plan.seed)?;
        write!(
            f,
            "  {} published ({} again), {} placed ({} hung up), {poisoned} poison; {reserved} reserved, {rejected} rejected; \
             dead-lettered: {poison} poison, {at_delivery_limit} at the delivery limit, {unheard} unheard{}",
            loaded.published.len(),
            loaded.repeated,
            loaded.placed.len(),
            loaded.hung_up,
            if plan.two_instances { "; two instances" } else { "" },
        )?;
        for (rule, (count, details)) in &self.violations.0 {
            write!(f, "\n  ✗ {rule}: {count}, such as")?;
            for detail in details {
                write!(f, "\n      {}", detail.trim())?;
            }
        }
        Ok(())
    }
}

/// The result table of docs/faults.md.
fn summary(reports: &[Report], took: Duration) -> String {
    let mut lines =
        vec!["| fault | injected | under seeds | of which failed |".to_owned(), "|---|---|---|---|".to_owned()];
    for (kind, name) in Kind::ALL {
        let with: Vec<&Report> = reports.iter().filter(|report| report.injected.contains_key(&kind)).collect();
        let injected: u64 = with.iter().map(|report| report.injected[&kind]).sum();
        let failed = with.iter().filter(|report| report.failed()).count();
        lines.push(format!("| {name} | {injected} | {} | {failed} |", with.len()));
    }
    let total = |count: &dyn Fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let failed = total(&|report| usize::from(report.failed()));
    lines.push(format!(
        "\n{} seeds, {failed} of them failed, in {:.0} s: {} orders published ({} again), {} placed by clients ({} requests \
         hung up), {} answered with StockReserved, {} with StockRejected; dead-lettered: {} poison, {} at the delivery limit, {} \
         whose answer nobody listened to",
        reports.len(),
        took.as_secs_f32(),
        total(&|report| report.loaded.published.len()),
        total(&|report| report.loaded.repeated),
        total(&|report| report.loaded.placed.len()),
        total(&|report| report.loaded.hung_up),
        total(&|report| report.reserved),
        total(&|report| report.rejected),
        total(&|report| report.dead_letters.poison),
        total(&|report| report.dead_letters.at_delivery_limit),
        total(&|report| report.dead_letters.unheard),
    ));
    let mut rules = BTreeMap::<&str, (usize, Vec<u64>)>::new();
    for report in reports {
        for (rule, (count, _)) in &report.violations.0 {
            let (total, seeds) = rules.entry(rule).or_default();
            *total += count;
            seeds.push(report.plan.seed);
        }
    }
    lines.extend(
        rules.iter().map(|(rule, (total, seeds))| format!("✗ {rule}: {total} times, under the seeds {seeds:?}")),
    );
    lines.join("\n")
}
