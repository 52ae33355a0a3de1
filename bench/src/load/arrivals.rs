use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Exp1};

use super::Pace;

/// When orders are due. At an open pace nothing but the clock decides that, above all no answer.
#[derive(Debug)]
pub(super) struct Arrivals {
    pace: Pace,
    due: Instant,
    random: SmallRng,
}

impl Arrivals {
    /// None is due before `begin`.
    pub(super) fn new(pace: Pace, begin: Instant) -> Self {
        Self { pace, due: begin, random: SmallRng::seed_from_u64(2) }
    }

    /// From `begin` on at another pace.
    pub(super) fn change(&mut self, pace: Pace, begin: Instant) {
        self.pace = pace;
        self.due = self.due.max(begin);
    }

    /// The moment an order was due, if one was before `now`.
    pub(super) fn next(&mut self, now: Instant, outstanding: usize) -> Option<Instant> {
        match self.pace {
            Pace::Closed { in_flight } => (outstanding < in_flight).then_some(now),
            Pace::Open { per_second } => {
                let due = self.due;
                (due < now).then(|| {
                    let gap: f64 = Exp1.sample(&mut self.random);
                    self.due += Duration::from_secs_f64(gap / per_second);
                    due
                })
            }
        }
    }

    /// When to look again without an answer.
    pub(super) fn next_due(&self) -> Option<Instant> {
        matches!(self.pace, Pace::Open { .. }).then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Pace = Pace::Open { per_second: 1_000.0 };

    fn dues(count: usize, looks_every: Duration, outstanding: usize) -> Vec<Duration> {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(OPEN, begin);
        let (mut now, mut dues) = (begin, Vec::new());
        while dues.len() < count {
            now += looks_every;
            dues.extend(std::iter::from_fn(|| arrivals.next(now, outstanding)).map(|due| due - begin));
        }
        dues.truncate(count);
        dues
    }

    #[test]
    fn an_open_pace_keeps_its_rate_at_random_moments() {
        let dues = dues(20_000, Duration::from_millis(1), 0);
        let gaps: Vec<f64> = dues.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1000.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.97..1.03).contains(&mean), "{mean} ms");
        // Of an exponential distribution the deviation is the mean.
        assert!((0.95..1.05).contains(&variance.sqrt()), "{} ms", variance.sqrt());
    }

    #[test]
    fn no_answer_and_no_stall_moves_the_moment_an_order_is_due() {
        let smooth = dues(1_000, Duration::from_micros(100), 0);
        assert_eq!(smooth, dues(1_000, Duration::from_millis(700), 0), "stalls");
        assert_eq!(smooth, dues(1_000, Duration::from_micros(100), 1_000_000), "unanswered orders");
    }

    #[test]
    fn a_closed_pace_waits_for_an_answer() {
        let now = Instant::now();
        let mut arrivals = Arrivals::new(Pace::Closed { in_flight: 2 }, now);
        assert_eq!(arrivals.next(now, 1), Some(now));
        assert_eq!(arrivals.next(now, 2), None);
        assert_eq!(arrivals.next_due(), None);
    }

    #[test]
    fn a_change_of_pace_loses_no_order_that_was_due() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(OPEN, begin);
        assert_eq!(arrivals.next(begin + Duration::from_secs(1), 0), Some(begin));
        let due = arrivals.next_due();
        arrivals.change(Pace::Open { per_second: 1.0 }, begin);
        assert_eq!(arrivals.next_due(), due);
        arrivals.change(OPEN, begin + Duration::from_secs(9));
        assert_eq!(arrivals.next_due(), Some(begin + Duration::from_secs(9)));
    }
}
