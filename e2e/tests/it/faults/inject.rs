//! Injects one kind of fault, again and again, until it is told to stop; then all of it is undone, except for connections
//! that stay silent for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dev::proxy::{Delay, Direction, Proxy};
use events::queues;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::plan::{Kind, Purpose, random_for};
use super::site::Site;

/// What faults are injected into.
pub(super) struct Target<'a> {
    pub(super) seed: u64,
    pub(super) site: &'a Site,
    pub(super) broker: &'a Broker,
    pub(super) poisoned: &'a AtomicU64,
}

/// A queue, the exchange it is bound to, and with which key.
const BINDINGS: [(&str, &str, &str); 4] = [
    (queues::ORDER_CREATED, events::orders::EXCHANGE, "order.created"),
    (queues::ORDER_SETTLED, events::orders::EXCHANGE, "order.completed"),
    (queues::ORDER_SETTLED, events::orders::EXCHANGE, "order.cancelled"),
    (queues::STOCK_OUTCOMES, events::inventory::EXCHANGE, "stock.reserved"),
];

impl Target<'_> {
    /// Returns how often the fault was injected.
    pub(super) async fn inject(&self, kind: Kind, stop: &CancellationToken) -> u64 {
        let mut random = random_for(self.seed, Purpose::Fault(kind));
        let mut injected = 0;
        loop {
            let pause = millis(&mut random, pauses(kind));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return injected;
            }
            injected += 1;
            self.once(kind, &mut random, stop).await;
        }
    }

    /// Injects the fault once and undoes it.
    async fn once(&self, kind: Kind, random: &mut StdRng, stop: &CancellationToken) {
        let site = self.site;
        let hold = async |duration: Duration| {
            stop.run_until_cancelled(tokio::time::sleep(duration)).await;
        };
        match kind {
            Kind::AmqpReset => reset(&site.amqp, random),
            Kind::PostgresReset => reset(&site.postgres, random),
            Kind::Latency => {
                let latency = Duration::from_micros(random.random_range(0..2_500));
                let jitter = Duration::from_micros(random.random_range(0..1_000));
                self.delay_all(Delay { latency, jitter });
                hold(millis(random, (500, 2_000))).await;
                self.delay_all(Delay::default());
            }
            Kind::Throttle => {
                let proxy = choose(random, [&site.amqp[0], &site.amqp[1], &site.postgres[0], &site.postgres[1]]);
                let limit = random.random_range(50_000..500_000);
                for direction in [Direction::ToServer, Direction::ToClient] {
                    proxy.throttle(direction, Some(limit));
                }
                hold(millis(random, (300, 2_000))).await;
                for direction in [Direction::ToServer, Direction::ToClient] {
                    proxy.throttle(direction, None);
                }
            }
            Kind::AmqpSilence => self.silence(&site.amqp, random, hold).await,
            Kind::PostgresSilence => self.silence(&site.postgres, random, hold).await,
            Kind::Refusal => {
                let proxy = choose(random, [&site.amqp[0], &site.amqp[1], &site.postgres[0], &site.postgres[1]]);
                proxy.refuse(true);
                proxy.reset_all();
                hold(millis(random, (200, 2_000))).await;
                proxy.refuse(false);
            }
            Kind::ReadOnly => {
                let database = choose(random, [&site.databases[0], &site.databases[1]]);
                let duration = millis(random, (300, 2_500));
                database.set_read_only(true).unwrap();
                database.close_connections().unwrap();
                hold(duration).await;
                database.set_read_only(false).unwrap();
                database.close_connections().unwrap();
            }
            Kind::FullDeadLetters => {
                let (management, vhost) = (site.vhost.management(), site.vhost.name());
                // Poison reaches this one; valid messages are dead in none.
                let dead = queues::dead(queues::ORDER_CREATED);
                management.limit_queue(vhost, &dead, 1).unwrap();
                self.poison(random).await;
                hold(millis(random, (500, 3_000))).await;
                management.raise_limit(vhost, &dead).unwrap();
            }
            Kind::Poison => self.poison(random).await,
            Kind::DeletedExchange => {
                let exchanges = [events::orders::EXCHANGE, events::inventory::EXCHANGE, queues::DEAD_LETTERS];
                let duration = millis(random, (200, 1_500));
                self.broker.delete_exchange(choose(random, exchanges)).await;
                hold(duration).await;
                self.heal(random).await;
            }
            Kind::RemovedBinding => {
                let (queue, exchange, key) = choose(random, BINDINGS);
                let duration = millis(random, (200, 1_500));
                self.broker.remove_binding(queue, exchange, key).await;
                hold(duration).await;
                self.heal(random).await;
            }
            Kind::Kill => {
                let process = site.processes.choose(random).unwrap();
                let pause = millis(random, (0, 500));
                let mut process = process.lock().await;
                process.kill9();
                tokio::time::sleep(pause).await;
                process.spawn();
            }
        }
    }

    fn delay_all(&self, delay: Delay) {
        for proxy in self.site.amqp.iter().chain(&self.site.postgres) {
            for direction in [Direction::ToServer, Direction::ToClient] {
                proxy.delay(direction, delay);
            }
        }
    }

    /// Silence of established connections is in one direction or in both, and ends for half of them only when they do.
    /// Silence of all ends.
    async fn silence(&self, proxies: &[Proxy; 2], random: &mut StdRng, hold: impl AsyncFn(Duration)) {
        let proxy = choose(random, [&proxies[0], &proxies[1]]);
        let (is_total, is_for_ever) = (random.random_bool(0.2), random.random_bool(0.5));
        let duration = millis(random, (1_000, 6_000));
        if is_total {
            proxy.silence_all();
        } else {
            match choose(random, [None, Some(Direction::ToServer), Some(Direction::ToClient)]) {
                None => proxy.silence_established(),
                Some(direction) => proxy.silence_established_in(direction),
            };
        }
        hold(duration).await;
        if is_total || !is_for_ever {
            proxy.resume();
        }
    }

    async fn poison(&self, random: &mut StdRng) {
        const BODIES: [&str; 5] = [
            "no JSON",
            r#"{"event":"NeverHeardOf","order_id":"P"}"#,
            r#"{"event":"OrderCreated","order_id":"","items":[]}"#,
            r#"{"event":"OrderCreated","order_id":"P"}"#,
            r#"{"event":"OrderCompleted","order_id":"P"}"#,
        ];
        for _ in 0..random.random_range(1..=3) {
            let body = choose(random, BODIES);
            let number = self.poisoned.fetch_add(1, Ordering::Relaxed);
            self.broker.publish(&format!("poison-{number}"), body.as_bytes()).await;
        }
    }

    /// Running services declare again within 10 s what was deleted, and new sessions at once: one or the other.
    async fn heal(&self, random: &mut StdRng) {
        self.broker.bind_answers().await;
        if random.random_bool(0.5) {
            for proxy in &self.site.amqp {
                proxy.reset_all();
            }
        }
    }
}

fn reset(proxies: &[Proxy; 2], random: &mut StdRng) {
    let proxy = choose(random, [&proxies[0], &proxies[1]]);
    let (is_total, one) = (random.random_bool(0.5), random.random());
    if is_total {
        proxy.reset_all();
    } else {
        proxy.reset_one(one);
    }
}

/// The shortest and the longest pause before the fault is injected again, in milliseconds.
fn pauses(kind: Kind) -> (u64, u64) {
    match kind {
        Kind::AmqpReset => (100, 1_500),
        Kind::PostgresReset => (100, 1_000),
        Kind::Latency => (0, 100),
        Kind::Throttle | Kind::Refusal => (300, 2_000),
        Kind::AmqpSilence | Kind::PostgresSilence => (300, 2_500),
        Kind::ReadOnly => (500, 2_500),
        Kind::FullDeadLetters | Kind::Poison => (100, 1_000),
        Kind::DeletedExchange | Kind::RemovedBinding => (500, 2_500),
        Kind::Kill => (500, 3_000),
    }
}

fn millis(random: &mut StdRng, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(random.random_range(least..most))
}

fn choose<T: Copy, const N: usize>(random: &mut StdRng, among: [T; N]) -> T {
    among[random.random_range(0..N)]
}
