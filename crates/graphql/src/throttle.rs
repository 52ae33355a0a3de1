//! How much each caller may ask for in a second.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::Refusal;

/// Nobody needs more at once than so many seconds' worth.
const BURST_SECONDS: u32 = 10;

/// The most callers that are remembered before those who have been quiet are forgotten.
const MAX_CALLERS: usize = 100_000;

/// To whom a request is charged: an extension of the request, put there by whoever knows who asks. Requests without one
/// are charged to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Somebody who has signed in, by the number of their account.
    Account(u128),
    /// Anybody else, by their network.
    Network(IpAddr),
}

/// Charges callers for what they ask.
pub(crate) struct Throttle {
    callers: DefaultKeyedRateLimiter<Payer>,
    clock: DefaultClock,
    burst: NonZeroU32,
}

impl Throttle {
    /// Lets each caller ask for so much a second; `None` for as much as they like.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = per_second.saturating_mul(const { NonZeroU32::new(BURST_SECONDS).unwrap() });
        let callers = RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst));
        Some(Self { callers, clock: DefaultClock::default(), burst })
    }

    /// Charges somebody.
    ///
    /// # Errors
    /// RATE_LIMITED, where they have asked for too much already. That is not charged.
    pub(crate) fn charge(&self, payer: Payer, price: u32) -> Result<(), Refusal> {
        if self.callers.len() > MAX_CALLERS {
            self.callers.retain_recent();
        }
        // What is dearer than any burst is charged at a whole one: a single request has limits of its own.
        let price = NonZeroU32::new(price).map_or(NonZeroU32::MIN, |price| price.min(self.burst));
        let Ok(Err(not_until)) = self.callers.check_key_n(&payer, price) else { return Ok(()) };
        metrics::counter!("requests_rate_limited_total").increment(1);
        let seconds = not_until.wait_time_from(self.clock.now()).as_secs_f64().ceil() as u64;
        let message = format!("too many requests: try again in {seconds} s");
        Err(Refusal::rate_limited(message).with("retryAfterSeconds", seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_too_much_waits_and_nobody_else_does() {
        let throttle = Throttle::new(100).unwrap();
        let [ann, bob] = [Payer::Account(1), Payer::Network(IpAddr::from([127, 0, 0, 1]))];
        assert!(throttle.charge(ann, 600).is_ok() && throttle.charge(ann, 390).is_ok());
        let refused = throttle.charge(ann, 500).unwrap_err();
        assert_eq!(refused.code(), crate::Code::RateLimited);
        let (name, seconds) = refused.details().next().unwrap();
        assert_eq!((name, seconds), ("retryAfterSeconds", &5.into()));
        assert!(throttle.charge(bob, 1_000).is_ok());
        assert!(throttle.charge(ann, 1).is_ok(), "what is refused is not charged");
    }

    #[test]
    fn a_single_request_that_is_dearer_than_any_burst_is_answered_once() {
        let throttle = Throttle::new(1).unwrap();
        assert!(throttle.charge(Payer::Account(1), u32::MAX).is_ok());
        assert!(throttle.charge(Payer::Account(1), 1).is_err());
        assert!(Throttle::new(0).is_none());
    }

    #[test]
    fn callers_who_were_quiet_are_forgotten_when_there_are_too_many() {
        // A charge of 1 counts for a microsecond.
        let throttle = Throttle::new(1_000_000).unwrap();
        for account in 0..=MAX_CALLERS {
            assert!(throttle.charge(Payer::Account(account as u128), 1).is_ok());
        }
        assert_eq!(throttle.callers.len(), MAX_CALLERS + 1, "somebody was forgotten too early");
        assert!(throttle.charge(Payer::Account(u128::MAX), 1).is_ok());
        assert!(throttle.callers.len() < MAX_CALLERS / 2, "{}", throttle.callers.len());
    }
}
