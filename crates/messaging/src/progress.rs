use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Work that is in hand and has not moved for so long stands still. Longer than the broker takes to confirm when a queue
/// elects a new leader.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Work that moved nothing is taken to be in hand for so long after it is to be tried again: longer than it takes to begin a new
/// session, and to get a message back from the broker.
const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// How long health speaks of an event that could not be delivered.
const UNDELIVERED_FOR: Duration = Duration::from_secs(30);

/// Whether messages get on: for each queue and for the outbox, since when there is work in hand that has not moved.
///
/// A connection that is open says nothing about it, so health asks here.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    in_hand: BTreeMap<&'static str, Work>,
    undelivered: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Work {
    units: usize,
    moved: Instant,
    /// Until when it is in hand without a unit, because the last unit moved nothing.
    tried_again_until: Option<Instant>,
}

impl Work {
    fn is_in_hand(&self) -> bool {
        self.units > 0 || self.tried_again_until.is_some_and(|until| Instant::now() < until)
    }
}

/// A unit of work in hand: a batch, or a step of the relay. One that is dropped has moved nothing, and is tried again by the next
/// session.
#[derive(Debug)]
pub struct Unit {
    progress: Progress,
    name: &'static str,
    ends: Ends,
}

#[derive(Debug, Clone, Copy)]
enum Ends {
    Done,
    /// To be tried again after so long.
    Unmoved(Duration),
}

impl Progress {
    /// Takes a unit of work in hand. `name` is a queue's or the outbox's.
    pub fn begin(&self, name: &'static str) -> Unit {
        let mut state = self.state();
        let work =
            state.in_hand.entry(name).or_insert(Work { units: 0, moved: Instant::now(), tried_again_until: None });
        if !work.is_in_hand() {
            work.moved = Instant::now();
        }
        work.units += 1;
        Unit { progress: self.clone(), name, ends: Ends::Unmoved(Duration::ZERO) }
    }

    /// Remembers that an event could not be delivered, because no queue is bound for it.
    pub fn undelivered(&self, exchange: &str, routing_key: &str) {
        let reason = format!("no queue of the exchange {exchange} is bound for {routing_key}");
        self.state().undelivered = Some((Instant::now(), reason));
    }

    /// Whether all work in hand gets on.
    ///
    /// # Errors
    /// What stands still, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        let stalled = state.in_hand.iter().find(|(_, work)| work.is_in_hand() && work.moved.elapsed() > STALLED_AFTER);
        stalled
            .map_or(Ok(()), |(name, work)| Err(format!("{name} stands still for {} s", work.moved.elapsed().as_secs())))
    }

    /// Whether all that was published in the last 30 seconds was delivered to some queue.
    ///
    /// # Errors
    /// What was not.
    pub fn check_delivery(&self) -> Result<(), String> {
        match &self.state().undelivered {
            Some((at, reason)) if at.elapsed() < UNDELIVERED_FOR => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unit {
    /// Ends it with something done.
    pub(crate) fn done(mut self) {
        self.ends = Ends::Done;
    }

    /// Ends it without anything done: all of it is tried again after so long.
    pub(crate) fn end_unmoved(mut self, tried_again_after: Duration) {
        self.ends = Ends::Unmoved(tried_again_after);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(work) = self.progress.state().in_hand.get_mut(self.name) {
            work.units = work.units.saturating_sub(1);
            let now = Instant::now();
            match self.ends {
                Ends::Done => (work.moved, work.tried_again_until) = (now, None),
                Ends::Unmoved(after) => work.tried_again_until = Some(now + after + TRIED_AGAIN_WITHIN),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_older(progress: &Progress, name: &str) {
        progress.state().in_hand.get_mut(name).unwrap().moved = Instant::now() - 2 * STALLED_AFTER;
    }

    #[test]
    fn work_in_hand_that_does_not_move_is_told_of() {
        let progress = Progress::default();
        let first = progress.begin("queue");
        assert_eq!(progress.check(), Ok(()));
        is_older(&progress, "queue");
        assert!(progress.check().unwrap_err().starts_with("queue stands still for 2"));
        // The next batch is no progress, the end of one is.
        let second = progress.begin("queue");
        assert!(progress.check().is_err());
        first.done();
        assert_eq!(progress.check(), Ok(()));
        second.done();
        is_older(&progress, "queue");
        assert_eq!(progress.check(), Ok(()), "no work, however long");
    }

    #[test]
    fn work_that_only_waits_to_be_tried_again_stands_still_between_its_tries_too() {
        let progress = Progress::default();
        let moved = progress.begin("queue");
        progress.begin("queue").end_unmoved(Duration::from_secs(3_600));
        assert_eq!(progress.check(), Ok(()));
        moved.done();
        progress.begin("queue").end_unmoved(Duration::from_secs(3_600));
        is_older(&progress, "queue");
        assert!(progress.check().is_err());
        let next = progress.begin("queue");
        assert!(progress.check().is_err());
        next.done();
        assert_eq!(progress.check(), Ok(()));
    }

    #[test]
    fn work_that_sessions_end_in_again_and_again_stands_still() {
        let progress = Progress::default();
        drop(progress.begin("queue"));
        is_older(&progress, "queue");
        assert!(progress.check().is_err(), "between two sessions");
        drop(progress.begin("queue"));
        assert!(progress.check().is_err());
        progress.state().in_hand.get_mut("queue").unwrap().tried_again_until = Some(Instant::now());
        assert_eq!(progress.check(), Ok(()), "another instance has it");
    }

    #[test]
    fn a_pause_does_not_count_as_standing_still() {
        let progress = Progress::default();
        progress.begin("queue").done();
        is_older(&progress, "queue");
        let _unit = progress.begin("queue");
        assert_eq!(progress.check(), Ok(()));
    }
}
