use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::arrivals::Arrivals;
use super::client::Client;
use super::mix::Orders;
use super::sent::Sent;
use super::{Mix, Pace};

/// The most orders sent between two looks at the answers.
const BURST: usize = 250;

/// A longer latency counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// How long nothing may be answered while something is owed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far the orders sent may lie behind those that are due.
const LONGEST_LAG: Duration = Duration::from_secs(300);

/// By how much a stretch in which no order was due is lengthened, at least.
const SHORTEST: Duration = Duration::from_millis(10);

/// Pause of a sender whom the broker owes too many confirms.
const THROTTLED: Duration = Duration::from_millis(1);

/// How long a stretch that is over waits for answers between two looks.
const WAITING: Duration = Duration::from_millis(10);

/// Orders being sent and answered, stretch by stretch. Nothing is lost between two of them.
pub struct Run<'client> {
    client: &'client mut Client,
    mix: Mix,
    bodies: Orders,
    sent: Sent,
    arrivals: Arrivals,
    /// The end of the stretches so far, by plan: an overloaded sender reaches it later.
    planned: Instant,
    latency: Histogram<u64>,
    first_answer: Option<Instant>,
    last_answer: Instant,
}

/// What happened from one moment to another.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// How long it took.
    pub seconds: f64,
    /// Orders sent.
    pub sent: usize,
    /// From when an order was due to its answer, in microseconds, of the orders answered meanwhile.
    pub latency: Histogram<u64>,
}

impl Stretch {
    /// Orders answered per second.
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.seconds
    }

    /// A quantile of the latency, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What all orders of a run were told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// How many have their stock.
    pub reserved: u64,
    /// How many have none.
    pub rejected: u64,
    /// From the first answer to the last.
    pub time: Duration,
}

impl<'client> Run<'client> {
    pub(super) fn new(client: &'client mut Client, mix: Mix) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            client,
            mix,
            bodies: Orders::new(mix)?,
            sent: Sent::default(),
            arrivals: Arrivals::new(Pace::Closed { in_flight: 0 }, now),
            planned: now,
            latency: Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)?,
            first_answer: None,
            last_answer: now,
        })
    }

    /// Sends at a pace until `length` has passed, all that was due until then is sent, and an order is answered: on a busy
    /// machine a short stretch could end before one is answered, or even due, and a rate of none is no measurement.
    ///
    /// # Errors
    /// When an order is told two things, or the broker refuses one or takes none for too long.
    pub async fn keep(&mut self, pace: Pace, length: Duration) -> Result<Stretch> {
        let (begin, sent_before) = (Instant::now(), self.sent.len());
        if let Pace::Closed { .. } = pace {
            self.planned = begin;
        }
        self.arrivals.change(pace, self.planned);
        self.planned += length;
        self.latency.reset();
        loop {
            let now = Instant::now();
            let all_sent = self.send_due(now.min(self.planned)).await?;
            if now >= self.planned && all_sent {
                if !self.latency.is_empty() {
                    break;
                }
                if self.sent.outstanding() == 0 {
                    self.planned = now + length.max(SHORTEST);
                }
            }
            ensure!(now < self.planned + LONGEST_LAG, "the broker takes the orders too slowly");
            let wake = match self.arrivals.next_due() {
                _ if self.client.is_throttled() => now + THROTTLED,
                _ if !all_sent => now,
                _ if now >= self.planned => now + WAITING,
                due => due.unwrap_or(self.planned).min(self.planned),
            };
            self.hear(wake).await?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Stretch { seconds, sent: self.sent.len() - sent_before, latency: self.latency.clone() })
    }

    /// Sends a number of orders, of which nobody need answer any yet, and waits until the broker has them all.
    ///
    /// # Errors
    /// When the broker refuses one.
    pub async fn pile_up(&mut self, orders: usize) -> Result<()> {
        for _ in 0..orders {
            while self.client.is_throttled() {
                self.client.confirmed().await?;
            }
            self.send(Instant::now()).await?;
        }
        while self.client.unconfirmed() > 0 {
            self.client.confirmed().await?;
        }
        Ok(())
    }

    /// Waits until every order is answered.
    ///
    /// # Errors
    /// When an order is lost or is told two things.
    pub async fn finish(mut self) -> Result<Told> {
        self.last_answer = Instant::now();
        while self.sent.outstanding() > 0 {
            ensure!(self.last_answer.elapsed() < PATIENCE, "{} answers are missing", self.sent.outstanding());
            self.hear(Instant::now() + Duration::from_secs(1)).await?;
        }
        let (reserved, rejected) = self.sent.outcomes();
        self.client.count(reserved);
        let time = self.first_answer.map(|first| self.last_answer - first).unwrap_or_default();
        Ok(Told { reserved, rejected, time })
    }

    /// How many orders wait in the broker for somebody to take them.
    ///
    /// # Errors
    /// Those of the broker.
    pub async fn waiting(&self) -> Result<u32> {
        self.client.waiting().await
    }

    /// Sends what was due before `now`, up to a bound. Whether that was all.
    async fn send_due(&mut self, now: Instant) -> Result<bool> {
        for _ in 0..BURST {
            if self.client.is_throttled() {
                return Ok(false);
            }
            let Some(due) = self.arrivals.next(now, self.sent.outstanding()) else { return Ok(true) };
            self.send(due).await?;
        }
        Ok(false)
    }

    async fn send(&mut self, due: Instant) -> Result<()> {
        let copies = if self.mix == Mix::Twice { 2 } else { 1 };
        let body = self.bodies.body(self.client.run(), self.sent.len());
        for _ in 0..copies {
            self.client.publish(self.mix.event().1, body).await?;
        }
        self.sent.add(due, copies);
        Ok(())
    }

    /// Takes the answers that are there, or come until a moment.
    async fn hear(&mut self, until: Instant) -> Result<()> {
        if let Some(answers) = self.client.answers(until).await? {
            let now = Instant::now();
            for (number, is_reserved) in answers {
                let due = self.sent.answered(number, is_reserved)?;
                self.latency.saturating_record((now - due).as_micros() as u64);
                self.first_answer.get_or_insert(now);
                self.last_answer = now;
            }
        }
        self.client.check_confirms()
    }
}
