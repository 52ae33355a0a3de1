//! More orders than can be answered.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::figures;
use super::side::Side;
use crate::Effort;
use crate::ground::Ground;
use crate::load::{Mix, Pace, Run, Stretch};
use crate::machine;
use crate::report::{Section, Target};

/// The surge, in lengths of one measurement: a minute, if one takes 5 s.
const SURGE: u32 = 12;

/// How often it is looked at, and of what time a p99 is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// How many times the usual p99 is as good as usual.
const USUAL: f64 = 10.0;

/// And what is good enough in any case, in milliseconds: where few orders are sent, the usual p99 is one lucky order.
const GOOD_MS: f64 = 250.0;

/// How long it may take to become usual again.
const PATIENCE: Duration = Duration::from_secs(600);

/// Twice the maximum for a minute, then half of it.
pub async fn run(ground: &Ground, effort: Effort) -> Result<Section> {
    let mut side = Side::inventory(ground, effort, 1).await?;
    let maximum = side.measure(Pace::Closed { in_flight: 1_000 }, Mix::Spread).await?.per_second;
    let (half, twice) = (Pace::Open { per_second: maximum / 2.0 }, Pace::Open { per_second: maximum * 2.0 });
    let pid = side.service.pids()[0];
    let mut run = side.client.begin(Mix::Spread)?;
    run.keep(half, effort.warm_up()).await?;
    let usual_ms = run.keep(half, effort.length).await?.latency_ms(0.99);
    let before_mib = machine::memory_mib(pid)?;
    let surge = Surge::run(&mut run, twice, effort.length * SURGE, pid).await?;
    let recovery = recover(&mut run, half, (usual_ms * USUAL).max(GOOD_MS)).await?;
    let told = run.finish().await?;
    side.verify()?;

    let due = maximum * 2.0;
    let about = format!(
        "Twice our maximum of {maximum:.0} orders/s for {:.0} s, by a load generator on the same machine, then half of \
         it. {} All {} orders were answered. The usual p99 at half the maximum is {usual_ms:.1} ms.",
        (effort.length * SURGE).as_secs_f64(),
        surge.throttling(due),
        told.reserved + told.rejected,
    );
    let rows = vec![
        figures::alone(
            "s after the surge until the p99 of one second is below 10 × the usual, or 250 ms",
            recovery,
            None,
            String::new(),
        ),
        figures::alone(
            "orders waiting in the broker, at most, thousands",
            f64::from(surge.longest_queue) / 1000.0,
            None,
            format!("every tenth of the surge: {}", surge.queue_in_tenths()),
        ),
        figures::alone(
            "peak memory of ms-inventory, MiB",
            side.peak_memory_mib()?,
            Some(Target::AtMost(64.0)),
            format!("before the surge {before_mib:.1}, at most {:.1} in it", surge.peak_mib),
        ),
    ];
    Ok(Section { title: "overload", about, rows })
}

struct Surge {
    per_second: f64,
    answered_per_second: f64,
    late: Duration,
    queue: Vec<u32>,
    longest_queue: u32,
    peak_mib: f64,
}

impl Surge {
    async fn run(run: &mut Run<'_>, pace: Pace, length: Duration, pid: i32) -> Result<Self> {
        let (begin, window) = (Instant::now(), WINDOW.min(length / 10));
        let (mut sent, mut answered, mut queue, mut peak_mib) = (0, 0, Vec::new(), 0.0_f64);
        for _ in 0..length.div_duration_f64(window).round() as u32 {
            let second: Stretch = run.keep(pace, window).await?;
            sent += second.sent;
            answered += second.latency.len();
            queue.push(run.waiting().await?);
            peak_mib = peak_mib.max(machine::memory_mib(pid)?);
        }
        let (seconds, longest_queue) = (begin.elapsed().as_secs_f64(), queue.iter().copied().max().unwrap_or(0));
        let (per_second, answered_per_second) = (sent as f64 / seconds, answered as f64 / seconds);
        let late = begin.elapsed().saturating_sub(length);
        Ok(Self { per_second, answered_per_second, late, queue, longest_queue, peak_mib })
    }

    /// Whether the broker took the orders as fast as they were due.
    fn throttling(&self, due: f64) -> String {
        let Self { per_second, answered_per_second, .. } = self;
        let late = self.late.as_secs_f64();
        let answered = format!("meanwhile {answered_per_second:.0} orders/s were answered");
        if per_second / due > 0.98 {
            format!("The broker took all that was due; {answered}.")
        } else {
            format!(
                "Sending was throttled, by the broker's flow control or by the processors: {per_second:.0} of {due:.0} \
                 orders/s went out, the last of them {late:.0} s late; {answered}."
            )
        }
    }

    fn queue_in_tenths(&self) -> String {
        let step = self.queue.len().div_ceil(10).max(1);
        self.queue.iter().skip(step - 1).step_by(step).map(u32::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// How many seconds pass until the p99 of one second is below a limit.
async fn recover(run: &mut Run<'_>, pace: Pace, limit_ms: f64) -> Result<f64> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let second = run.keep(pace, WINDOW).await?;
        if !second.latency.is_empty() && second.latency_ms(0.99) < limit_ms {
            return Ok(begin.elapsed().as_secs_f64());
        }
    }
    anyhow::bail!("the latency is not as usual {} s after the surge", PATIENCE.as_secs())
}
