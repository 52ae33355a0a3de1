//! Who guesses passwords is slowed, and nobody is locked out by what others do.
//!
//! Two things are counted, in the memory of each instance:
//!
//! - All attempts of a client, a network address: a quota a minute.
//! - Attempts that failed, of one client at one account and of all *unknown* clients together at one account: after a few
//!   each next one has to wait twice as long. A client from which that account was signed in to before is not unknown, so
//!   that a stranger who tries from everywhere slows other strangers and not the owner. These are OWASP's [device cookies]
//!   with the address in place of the cookie.
//!
//! An account that does not exist is slowed like one that does, so that neither the delay nor its absence tells.
//!
//! [device cookies]: https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// So many may fail before the next has to wait.
const FREE_FAILURES: u32 = 4;

/// The longest wait of one client at one account.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);

/// The longest wait of strangers at one account: the owner may be one of them today.
const MAX_STRANGERS_WAIT: Duration = Duration::from_secs(60);

/// Failures are forgotten after this long without another one.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// The most accounts and clients that are remembered. Those that were quiet longest are forgotten first.
const MAX_ENTRIES: usize = 100_000;

/// It has to be tried again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts: try again in {} s", .retry_after.as_secs())]
pub struct Slow {
    /// How much later, rounded up to whole seconds.
    pub retry_after: Duration,
}

impl Slow {
    fn of(wait: Duration) -> Self {
        Self { retry_after: Duration::from_secs(wait.as_secs_f64().ceil() as u64) }
    }
}

/// Counts attempts. Clones share the counts.
#[derive(Clone)]
pub struct Throttle {
    clients: Arc<DefaultKeyedRateLimiter<String>>,
    failures: Arc<Mutex<Generations>>,
}

/// Failures, in two generations: what fails goes into the younger one. When that is full it becomes the older one, and what
/// was in there and has not failed since is forgotten.
#[derive(Default)]
struct Generations {
    young: HashMap<Key, Failures>,
    old: HashMap<Key, Failures>,
}

impl Generations {
    fn get(&self, key: &Key) -> Option<Failures> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// Those that are not forgiven yet.
    fn recent(&self, key: &Key, now: Instant) -> Option<Failures> {
        self.get(key).filter(|failed| now.duration_since(failed.last) < FORGIVEN_AFTER)
    }

    fn put(&mut self, key: Key, failures: Failures) {
        if self.young.len() >= MAX_ENTRIES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, failures);
    }

    fn remove(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn forgive_one(&mut self, key: Key) {
        if let Some(failed) = self.get(&key) {
            self.put(key, Failures { count: failed.count.saturating_sub(1), ..failed });
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// One client at one account.
    Client(String, String),
    /// All strangers at one account.
    Strangers(String),
}

impl Key {
    fn max_wait(&self) -> Duration {
        match self {
            Self::Client(..) => MAX_WAIT,
            Self::Strangers(_) => MAX_STRANGERS_WAIT,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// How long to wait after the last failure.
    fn wait(self, max: Duration) -> Duration {
        match self.count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(1 << over.min(20)).min(max),
        }
    }
}

/// An attempt that was let through. It counts as failed unless it [succeeded](Throttle::succeeded).
#[derive(Debug)]
#[must_use = "an attempt counts as failed until it is said to have succeeded"]
pub struct Attempt(Vec<Key>);

impl Throttle {
    /// Lets each client try so often in a minute, a third of it at once.
    pub fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(per_minute.get().div_ceil(3)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(per_minute).allow_burst(burst);
        Self { clients: Arc::new(RateLimiter::keyed(quota)), failures: Arc::default() }
    }

    /// Lets a client try something, whatever account it is about.
    ///
    /// # Errors
    /// [`Slow`].
    pub fn client(&self, client: &str) -> Result<(), Slow> {
        if self.clients.len() > MAX_ENTRIES {
            self.clients.retain_recent();
        }
        let waits =
            |not_until: governor::NotUntil<_>| Slow::of(not_until.wait_time_from(DefaultClock::default().now()));
        self.clients.check_key(&client.to_owned()).map_err(waits)
    }

    /// Lets a client try a password of an account.
    ///
    /// # Errors
    /// [`Slow`]. An attempt that is refused does not count, so it makes nobody wait longer.
    pub fn attempt(&self, account: &str, client: &str, is_known: bool, now: Instant) -> Result<Attempt, Slow> {
        let mut keys = vec![Key::Client(account.to_owned(), client.to_owned())];
        keys.extend((!is_known).then(|| Key::Strangers(account.to_owned())));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |key: &Key| {
            let failed = failures.recent(key, now)?;
            (failed.last + failed.wait(key.max_wait())).checked_duration_since(now)
        };
        let wait = keys.iter().filter_map(wait).max().unwrap_or_default();
        if wait > Duration::ZERO {
            return Err(Slow::of(wait));
        }
        for key in &keys {
            let count = failures.recent(key, now).map_or(0, |failed| failed.count).saturating_add(1);
            failures.put(key.clone(), Failures { count, last: now });
        }
        Ok(Attempt(keys))
    }

    /// The password was right: what failed before is forgiven.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for key in attempt.0 {
            match key {
                Key::Client(..) => failures.remove(&key),
                // That one stranger knows the password says nothing about the others.
                Key::Strangers(_) => failures.forgive_one(key),
            }
        }
    }

    /// Nobody has looked at the password.
    pub fn withdrawn(&self, attempt: Attempt) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        attempt.0.into_iter().for_each(|key| failures.forgive_one(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fails(throttle: &Throttle, client: &str, is_known: bool, now: Instant) -> Option<u64> {
        throttle.attempt("ann", client, is_known, now).err().map(|slow| slow.retry_after.as_secs())
    }

    #[test]
    fn each_failure_after_a_few_doubles_the_wait_up_to_a_bound() {
        let (throttle, mut now) = (Throttle::new(1_000), Instant::now());
        for _ in 0..FREE_FAILURES {
            assert_eq!(fails(&throttle, "a", true, now), None);
        }
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert_eq!(fails(&throttle, "a", true, now), Some(wait));
            assert_eq!(fails(&throttle, "a", true, now), Some(wait), "what is refused does not count");
            now += Duration::from_secs(wait);
            assert_eq!(fails(&throttle, "a", true, now), None);
        }
        assert_eq!(fails(&throttle, "b", true, now), None, "another client is not slowed");
        now += FORGIVEN_AFTER;
        assert_eq!(fails(&throttle, "a", true, now), None);
        assert_eq!(fails(&throttle, "a", true, now), None, "an hour later all is forgiven");
    }

    #[test]
    fn strangers_slow_each_other_a_little_and_the_owner_not_at_all() {
        let (throttle, mut now) = (Throttle::new(1_000), Instant::now());
        for stranger in 0..1_000 {
            if let Some(wait) = fails(&throttle, &stranger.to_string(), false, now) {
                assert!(wait <= MAX_STRANGERS_WAIT.as_secs(), "{wait}");
                now += Duration::from_secs(wait);
                assert_eq!(fails(&throttle, &stranger.to_string(), false, now), None);
            }
        }
        assert_eq!(fails(&throttle, "one more", false, now), Some(MAX_STRANGERS_WAIT.as_secs()));
        assert_eq!(fails(&throttle, "home", true, now), None, "the owner is known at home");
    }

    #[test]
    fn who_knows_the_password_starts_anew() {
        let (throttle, now) = (Throttle::new(1_000), Instant::now());
        for _ in 1..FREE_FAILURES {
            assert_eq!(fails(&throttle, "a", true, now), None);
        }
        throttle.succeeded(throttle.attempt("ann", "a", true, now).unwrap());
        for _ in 0..FREE_FAILURES {
            assert_eq!(fails(&throttle, "a", true, now), None);
        }
        assert_eq!(fails(&throttle, "a", true, now), Some(1));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_goes_on_stays() {
        let (throttle, mut now) = (Throttle::new(1_000), Instant::now());
        for _ in 0..FREE_FAILURES {
            assert_eq!(fails(&throttle, "a", true, now), None);
        }
        for n in 0..3 * MAX_ENTRIES {
            drop(throttle.attempt(&n.to_string(), "b", true, now));
            if n % (MAX_ENTRIES / 10) == 0 {
                now += MAX_WAIT;
                assert_eq!(fails(&throttle, "a", true, now), None);
            }
        }
        let generations = throttle.failures.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= MAX_ENTRIES);
        assert!(generations.get(&Key::Client("ann".into(), "a".into())).unwrap().count > FREE_FAILURES);
    }

    #[test]
    fn an_attempt_nobody_looked_at_is_none() {
        let (throttle, now) = (Throttle::new(1_000), Instant::now());
        for _ in 0..10 * FREE_FAILURES {
            throttle.withdrawn(throttle.attempt("ann", "a", false, now).unwrap());
        }
    }

    #[test]
    fn a_client_has_a_quota_whatever_it_tries() {
        let throttle = Throttle::new(9);
        for _ in 0..3 {
            assert_eq!(throttle.client("a"), Ok(()));
        }
        assert!(throttle.client("a").unwrap_err().retry_after >= SECOND);
        assert_eq!(throttle.client("b"), Ok(()));
    }

    #[test]
    fn clients_that_were_quiet_are_forgotten_when_there_are_too_many() {
        // An attempt counts for a microsecond.
        let throttle = Throttle::new(60_000_000);
        for client in 0..=MAX_ENTRIES {
            assert_eq!(throttle.client(&client.to_string()), Ok(()));
        }
        assert_eq!(throttle.clients.len(), MAX_ENTRIES + 1, "somebody was forgotten too early");
        assert_eq!(throttle.client("one more"), Ok(()));
        assert!(throttle.clients.len() < MAX_ENTRIES / 2, "{}", throttle.clients.len());
    }

    #[test]
    fn a_wait_is_rounded_up_to_seconds() {
        let seconds = |millis| Slow::of(Duration::from_millis(millis)).retry_after.as_secs();
        assert_eq!([0, 1, 1_000, 1_001, 2_999].map(seconds), [0, 1, 1, 2, 3]);
    }
}
