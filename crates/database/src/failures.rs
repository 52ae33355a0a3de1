use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Health tells of work that failed again after so long. Once may have been a moment's.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// How long a failure is remembered. Longer than the longest pause before the same is tried again (60 s) and the time that it may
/// take ([`WORK_TIMEOUT`](crate::WORK_TIMEOUT)). That nothing was due meanwhile does not show that it would have succeeded.
const REMEMBERED_FOR: Duration = Duration::from_secs(90);

/// Which background work of a service fails, and since when. No request and no message waits for that work, so nothing else
/// shows that it does not get on.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<&'static str, Failure>>>);

#[derive(Debug)]
struct Failure {
    first: Instant,
    last: Instant,
    error: String,
}

impl Failures {
    /// Remembers that the work `name`, in the plural, has failed.
    pub fn failed(&self, name: &'static str, error: String) {
        let (mut failures, now) = (self.failures(), Instant::now());
        let before = failures.get(name).filter(|failure| failure.last.elapsed() < REMEMBERED_FOR);
        let first = before.map_or(now, |failure| failure.first);
        failures.insert(name, Failure { first, last: now, error });
    }

    /// Whether no work has failed again and again in the last 90 s.
    ///
    /// # Errors
    /// Which have, since when, and the last error of each.
    pub fn check(&self) -> Result<(), String> {
        let failures = self.failures();
        let told = failures.iter().filter_map(|(name, Failure { first, last, error })| {
            let is_told = last.elapsed() < REMEMBERED_FOR && last.duration_since(*first) >= TOLD_AFTER;
            is_told.then(|| format!("{name} have failed for {} s: {error}", first.elapsed().as_secs()))
        });
        let told: Vec<String> = told.collect();
        if told.is_empty() { Ok(()) } else { Err(told.join("; ")) }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<&'static str, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some time passes.
    fn pass(failures: &Failures, time: Duration) {
        for failure in failures.failures().values_mut() {
            failure.first -= time;
            failure.last -= time;
        }
    }

    #[test]
    fn each_work_that_fails_is_told() {
        let failures = Failures::default();
        let fail = || ["fills", "payments"].map(|name| failures.failed(name, "no table".to_owned()));
        fail();
        pass(&failures, TOLD_AFTER);
        fail();
        let told = "fills have failed for 10 s: no table; payments have failed for 10 s: no table";
        assert_eq!(failures.check(), Err(told.to_owned()));
    }

    #[test]
    fn work_that_fails_again_and_again_is_told_until_it_has_not_failed_for_a_while() {
        let failures = Failures::default();
        let fail = || failures.failed("payments", "no table".to_owned());
        fail();
        assert_eq!(failures.check(), Ok(()));
        pass(&failures, TOLD_AFTER);
        assert_eq!(failures.check(), Ok(()), "once");
        fail();
        assert_eq!(failures.check(), Err("payments have failed for 10 s: no table".to_owned()));
        pass(&failures, REMEMBERED_FOR);
        assert_eq!(failures.check(), Ok(()));
        fail();
        assert_eq!(failures.check(), Ok(()), "it begins anew");
    }
}
