//! What must hold once it is calm again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dev::workspace;
use events::queues;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use super::broker::{AllAnswers, Broker, DeadLetter};
use super::load::{Loaded, Published};
use super::plan::{Kind, Plan};
use super::site::Site;
use crate::shop::{command, printed};

/// The services' queues.
const QUEUES: [&str; 4] =
    [queues::ORDER_CREATED, queues::ORDER_SETTLED, queues::STOCK_OUTCOMES, queues::PRODUCT_CHANGES];

/// What PostgreSQL says to a BEGIN inside a transaction: a connection came back to its pool with a transaction open.
const NESTED_BEGIN: &str = "there is already a transaction in progress";

/// How soon after an answer its hold is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that does not hold.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    /// Which rule is broken; the same text for every violation of it.
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

/// Collects violations; of each rule it keeps the first few.
#[derive(Debug, Default)]
pub(super) struct Violations(pub(super) BTreeMap<&'static str, (usize, Vec<String>)>);

impl Violations {
    const KEPT: usize = 3;

    pub(super) fn add(&mut self, rule: &'static str, detail: impl Into<String>) {
        let (count, details) = self.0.entry(rule).or_default();
        *count += 1;
        if details.len() < Self::KEPT {
            details.push(detail.into());
        }
    }

    fn extend(&mut self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|Violation { rule, detail }| self.add(rule, detail));
    }
}

/// Direct access to what the services have stored.
pub(super) struct Stores {
    inventory: PgPool,
    orders: PgPool,
}

impl Stores {
    pub(super) async fn open(site: &Site) -> Self {
        let pool =
            async |at: usize| PgPoolOptions::new().max_connections(2).connect(site.databases[at].url()).await.unwrap();
        Self { inventory: pool(0).await, orders: pool(1).await }
    }

    /// Looks for the hold of each StockReserved as soon as the answer is there, until it is told to stop. Returns the orders
    /// whose answer came before its commit, be the hold lost or late.
    pub(super) async fn answered_before_commit(&self, broker: &Broker, stop: &CancellationToken) -> Vec<String> {
        let (mut checked, mut uncommitted) = (BTreeSet::new(), Vec::new());
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let answers = broker.answers();
            let reserved = answers.into_iter().filter(|(_, answer)| !answer.reserved.is_empty()).map(|(id, _)| id);
            let new: BTreeSet<String> = reserved.filter(|id| !checked.contains(id)).collect();
            let ids: Vec<&str> = new.iter().map(String::as_str).collect();
            let committed = sqlx::query_scalar::<_, String>("select order_id from holds where order_id = any($1)");
            // Faults may end this connection, too. The next look is at the same orders again.
            let Ok(committed) = committed.bind(ids).fetch_all(&self.inventory).await else { continue };
            let committed: BTreeSet<String> = committed.into_iter().collect();
            uncommitted.extend(new.difference(&committed).cloned());
            checked.extend(new);
        }
        uncommitted
    }

    /// What is still to be done, in a few words each; nothing once all has come to its end.
    async fn outstanding(&self, site: &Site, broker: &Broker, published: &[Published], poisoned: u64) -> Vec<String> {
        for queue in QUEUES {
            broker.collect_dead_letters(queue).await;
        }
        let (answers, dead) = (broker.answers(), dead_orders(&broker.dead_letters()));
        let is_open = |order: &&Published| !answers.contains_key(&order.id) && !dead.contains(&order.id);
        let unanswered = published.iter().filter(is_open).count();
        let found = poison(&broker.dead_letters()).len() as u64;
        let mut counts = vec![
            ("published orders without an answer", i64::try_from(unanswered).unwrap()),
            ("poison messages that are not dead-lettered", i64::try_from(poisoned.saturating_sub(found)).unwrap()),
        ];
        for (what, pool, count) in [
            ("events in the outbox of inventory", &self.inventory, "select count(*) from outbox"),
            ("events in the outbox of orders", &self.orders, "select count(*) from outbox"),
            (
                "orders without an end",
                &self.orders,
                "select count(*) from orders where status in ('pending', 'confirmed')",
            ),
            ("open payments", &self.orders, "select count(*) from payments where status in ('due', 'returning')"),
        ] {
            counts.push((what, sqlx::query_scalar(count).fetch_one(pool).await.unwrap()));
        }
        counts.push(("holds whose order has ended", self.unsettled_holds().await));
        for queue in QUEUES {
            let depth = broker.depth(queue).await.unwrap_or(u32::MAX);
            counts.push((queue, depth.into()));
        }
        let mut outstanding: Vec<String> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
        outstanding.extend(self.open_transactions(site).await);
        outstanding
    }

    /// Orders that have ended, and whose stock inventory still holds.
    async fn unsettled_holds(&self) -> i64 {
        let held: Vec<String> = sqlx::query_scalar("select order_id from holds where status = 'held'")
            .fetch_all(&self.inventory)
            .await
            .unwrap();
        let ended = "select count(*) from orders where id = any($1) and status not in ('pending', 'confirmed')";
        sqlx::query_scalar(ended).bind(held).fetch_one(&self.orders).await.unwrap()
    }

    /// Transactions that have been open for a second. None of the services needs so long for one.
    async fn open_transactions(&self, site: &Site) -> Vec<String> {
        let names: Vec<&str> = site.databases.iter().map(dev::testing::Database::name).collect();
        sqlx::query_scalar(
            "select format('open transaction of %s: %s, %s', application_name, state, left(query, 80))
             from pg_stat_activity
             where datname = any($1) and backend_type = 'client backend' and xact_start < now() - interval '1 second'",
        )
        .bind(names)
        .fetch_all(&self.orders)
        .await
        .unwrap()
    }
}

/// Everything that was gathered under a seed, once nothing changes any more.
pub(super) struct Evidence<'a> {
    pub(super) plan: &'a Plan,
    pub(super) loaded: &'a Loaded,
    pub(super) answers: AllAnswers,
    pub(super) stores: Stores,
}

struct Hold {
    status: String,
    items: BTreeMap<i64, i64>,
}

impl Evidence<'_> {
    /// Checks everything. Returns how many messages were dead-lettered, and why.
    pub(super) async fn check(&self, site: &Site, broker: &Broker, violations: &mut Violations) -> DeadLetters {
        let (holds, dead) = (self.holds().await, broker.dead_letters());
        let dead_letters = self.check_dead_letters(&dead, violations);
        self.check_published(&holds, &dead_orders(&dead), violations);
        self.check_reserved(&holds, violations);
        self.check_orders(&holds, violations).await;
        let doctor = command("ms-inventory", &["doctor"], &site.environment_of_doctor(), site.folder());
        let doctor = tokio::task::spawn_blocking(move || {
            let mut doctor = doctor;
            doctor.output().unwrap()
        })
        .await
        .unwrap();
        if !doctor.status.success() {
            let lines: Vec<String> = printed(&doctor).lines().take(5).map(str::to_owned).collect();
            violations.add("the doctor finds drift", lines.join("; "));
        }
        dead_letters
    }

    async fn holds(&self) -> HashMap<String, Hold> {
        type Row = (String, String, Option<Vec<i64>>, Option<Vec<i64>>);
        let rows: Vec<Row> = sqlx::query_as("select order_id, status::text, product_ids, quantities from holds")
            .fetch_all(&self.stores.inventory)
            .await
            .unwrap();
        rows.into_iter()
            .map(|(order, status, products, quantities)| {
                let items = products.unwrap_or_default().into_iter().zip(quantities.unwrap_or_default()).collect();
                (order, Hold { status, items })
            })
            .collect()
    }

    fn check_dead_letters(&self, dead: &[DeadLetter], violations: &mut Violations) -> DeadLetters {
        let mut counts = DeadLetters::default();
        for letter @ DeadLetter { queue, message_id, reason, .. } in dead {
            let told = format!("{queue}: {message_id:?} {reason:?}");
            match reason {
                None => violations.add("a dead letter has no reason", told),
                Some(_) if is_poison(letter) => counts.poison += 1,
                // It came back too often: to the broker that is poison.
                Some(reason) if reason == "delivery_limit" => counts.at_delivery_limit += 1,
                Some(reason)
                    if (reason.starts_with("nobody listens") || reason == "rejected") && self.may_be_unheard() =>
                {
                    counts.unheard += 1;
                }
                Some(_) => violations.add("a valid message is dead-lettered", told),
            }
        }
        counts
    }

    /// There is no place for an answer while no queue is bound for it.
    fn may_be_unheard(&self) -> bool {
        [Kind::DeletedExchange, Kind::RemovedBinding].iter().any(|kind| self.plan.kinds.contains(kind))
    }

    /// Orders that were published, and that ms-orders does not know: nothing happens to them after their answer.
    fn check_published(&self, holds: &HashMap<String, Hold>, dead: &BTreeSet<String>, violations: &mut Violations) {
        for Published { id, items } in &self.loaded.published {
            let hold = holds.get(id).map(|hold| (hold.status.as_str(), &hold.items));
            let Some(answer) = self.answers.get(id) else {
                if !dead.contains(id) {
                    violations
                        .add("a published order is neither answered nor dead-lettered", format!("{id}: {hold:?}"));
                }
                continue;
            };
            let (reserved, rejected) = (answer.reserved.len(), answer.rejected);
            let told = format!("{id}: {reserved} × reserved, {rejected} × rejected, hold {hold:?}");
            if reserved > 0 && rejected > 0 {
                violations.add("an order has two outcomes", told.clone());
            }
            if rejected > 0 && hold.is_none_or(|(status, _)| status != "rejected") {
                violations.add("StockRejected without its stored rejection", told.clone());
            }
            if reserved > 0 && hold.is_some_and(|(status, held)| status == "held" && *held != quantities(items)) {
                violations.add("a hold is not what was ordered", told);
            }
        }
    }

    /// Every StockReserved has its hold.
    fn check_reserved(&self, holds: &HashMap<String, Hold>, violations: &mut Violations) {
        for (id, answer) in &self.answers {
            let Some(items) = answer.reserved.first() else { continue };
            let hold = holds.get(id);
            // What ms-orders settles goes on; what it does not know stays held.
            let is_held = hold.is_some_and(|hold| match id.starts_with("D-") {
                true => hold.status == "held",
                false => hold.status != "rejected",
            });
            if !is_held {
                violations.add("StockReserved without its hold", format!("{id}: {:?}", hold.map(|hold| &hold.status)));
            } else if answer.reserved.iter().any(|again| quantities(again) != quantities(items))
                || hold.is_some_and(|hold| hold.items != quantities(items))
            {
                violations.add("an answer is not what is held", id);
            }
        }
    }

    /// Orders, holds and payments agree.
    async fn check_orders(&self, holds: &HashMap<String, Hold>, violations: &mut Violations) {
        let orders: Vec<(String, String, String)> = sqlx::query_as("select id, status::text, total::text from orders")
            .fetch_all(&self.stores.orders)
            .await
            .unwrap();
        let charged: Vec<(String, String)> =
            sqlx::query_as("select key, amount::text from provider_charges where state = 'charged'")
                .fetch_all(&self.stores.orders)
                .await
                .unwrap();
        let charged: HashMap<String, String> = charged.into_iter().collect();
        let known: BTreeSet<&str> = orders.iter().map(|(id, ..)| id.as_str()).collect();
        for id in self.loaded.placed.iter().filter(|id| !known.contains(id.as_str())) {
            violations.add("an order that was answered is not stored", id);
        }
        for key in &self.loaded.unanswered {
            violations.add("createOrder is not answered", key);
        }
        for (id, status, total) in &orders {
            let hold = holds.get(id).map(|hold| hold.status.as_str());
            let told = format!("{id} is {status}, its hold {hold:?}, charged {:?}", charged.get(id));
            let may_be: &[Option<&str>] = match status.as_str() {
                "completed" => &[Some("committed")],
                "cancelled" => &[Some("released"), Some("expired"), Some("rejected"), None],
                "refunded" => &[Some("committed"), Some("returned"), Some("rejected")],
                // Told as outstanding.
                _ => continue,
            };
            if !may_be.contains(&hold) {
                violations.add("an order and its hold disagree", told.clone());
            }
            if charged.get(id) != (status == "completed").then_some(total) {
                violations.add("an order and its payment disagree", told);
            }
        }
    }
}

/// How many messages were dead-lettered, and why.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeadLetters {
    pub(super) poison: usize,
    /// Valid messages that came back too often.
    pub(super) at_delivery_limit: usize,
    /// Valid messages whose answer no queue was bound for.
    pub(super) unheard: usize,
}

fn is_poison(letter: &DeadLetter) -> bool {
    letter.message_id.as_ref().is_some_and(|id| id.starts_with("poison-"))
}

/// The ids of the poison messages among dead letters, once each.
fn poison(dead: &[DeadLetter]) -> BTreeSet<&str> {
    dead.iter().filter(|letter| is_poison(letter)).filter_map(|letter| letter.message_id.as_deref()).collect()
}

/// The orders whose OrderCreated was dead-lettered.
fn dead_orders(dead: &[DeadLetter]) -> BTreeSet<String> {
    let dead = dead.iter().filter(|letter| letter.queue == queues::ORDER_CREATED);
    dead.filter_map(|letter| letter.order_id.clone()).collect()
}

/// The logs that are searched, and where PostgreSQL's began.
pub(super) struct Logs {
    postgres: Option<(PathBuf, u64)>,
}

impl Logs {
    /// From now on. PostgreSQL's is known for the private server only.
    pub(super) fn begin() -> Self {
        let path = workspace::test_dir().map(|folder| folder.join("logs/postgres.log")).ok();
        Self { postgres: path.and_then(|path| fs::metadata(&path).ok().map(|file| (path, file.len()))) }
    }

    /// Looks for transactions that began in another, in the logs of the services and of PostgreSQL.
    pub(super) fn check(&self, site: &Site, violations: &mut Violations) {
        let logs = site.logs().into_iter().map(|log| (log, 0)).chain(self.postgres.clone());
        for (log, from) in logs {
            let is_of_server = self.postgres.as_ref().is_some_and(|(postgres, _)| *postgres == log);
            let is_of_site =
                |line: &&str| !is_of_server || site.databases.iter().any(|database| line.contains(database.name()));
            let text = read_from(&log, from);
            let found = text.lines().filter(|line| line.contains(NESTED_BEGIN)).filter(is_of_site);
            violations.extend(found.map(|line| Violation {
                rule: "a transaction began in another",
                detail: format!("{}: {line:.300}", log.file_name().unwrap_or_default().display()),
            }));
        }
    }
}

fn read_from(log: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// By product, how many of it.
fn quantities(items: &Value) -> BTreeMap<i64, i64> {
    let items = items.as_array().into_iter().flatten();
    items.filter_map(|item| Some((item["product_id"].as_i64()?, item["quantity"].as_i64()?))).collect()
}

/// Waits until nothing is outstanding. What still is when `bound` is over is a violation.
pub(super) async fn settle(
    stores: &Stores,
    site: &Site,
    broker: &Broker,
    published: &[Published],
    poisoned: u64,
    bound: Duration,
    violations: &mut Violations,
) -> Duration {
    let begun = Instant::now();
    loop {
        let mut outstanding = stores.outstanding(site, broker, published, poisoned).await;
        outstanding.extend(site.not_ready().await);
        if outstanding.is_empty() || begun.elapsed() > bound {
            for detail in outstanding {
                violations.add("it has not settled within the bound", detail);
            }
            return begun.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An order of one piece.
pub(super) fn probe(seed: u64, product: i64) -> Published {
    Published { id: format!("D-{seed}-probe"), items: json!([{"product_id": product, "quantity": 1}]) }
}
