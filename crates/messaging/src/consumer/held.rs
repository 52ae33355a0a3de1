use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use tokio::time::Instant;

use super::Limits;
use crate::progress::Unit;

/// The pause between two tries at messages whose rows are locked. A try lasts as long as a statement waits for a lock (5 s), and
/// so the other messages have at least half of the time.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A message of which a row is locked is held so many times as long as a batch is tried.
const HELD_TIMES: u32 = 4;

/// Messages that stay unacknowledged and are tried again after others, because somebody has locked rows that they need.
///
/// One that waited for a minute while another message passed is to be dead-lettered: who locks a row and forgets it must not
/// have messages pile up. If none passed, somebody may have locked a table, and then they wait for as long as it takes.
#[derive(Debug)]
pub(super) struct Held {
    messages: VecDeque<HeldMessage>,
    held_for: Duration,
    retry_at: Instant,
    last_passed: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct HeldMessage {
    pub(super) delivery: Delivery,
    /// Health tells of work that does not move, and waiting for a lock is such.
    pub(super) unit: Arc<Unit>,
    since: Instant,
}

impl Held {
    pub(super) fn new(limits: Limits) -> Self {
        let held_for = limits.give_back_after() * HELD_TIMES;
        Self { messages: VecDeque::new(), held_for, retry_at: Instant::now(), last_passed: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Holds a message that was just found to have a locked row.
    pub(super) fn hold(&mut self, delivery: Delivery, unit: Arc<Unit>) {
        let now = Instant::now();
        // What comes later puts no earlier one off.
        if self.is_empty() {
            self.retry_at = now + RETRY_PAUSE;
        }
        self.messages.push_back(HeldMessage { delivery, unit, since: now });
    }

    /// Goes on holding a message whose row is still locked. Returns it if it has been held for too long.
    pub(super) fn hold_longer(&mut self, message: HeldMessage) -> Option<HeldMessage> {
        let now = Instant::now();
        self.retry_at = now + RETRY_PAUSE;
        if now.duration_since(message.since) >= self.held_for && self.last_passed > Some(message.since) {
            return Some(message);
        }
        self.messages.push_back(message);
        None
    }

    /// Remembers that a message has passed.
    pub(super) fn passed(&mut self) {
        self.last_passed = Some(Instant::now());
    }

    /// Waits until the next is to be tried; for ever if none is held.
    pub(super) async fn wait(&self) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.retry_at).await;
    }

    /// Whether it is time to try them.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.retry_at
    }

    /// The one that was not tried for the longest time.
    pub(super) fn take(&mut self) -> Option<HeldMessage> {
        self.messages.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::Progress;

    const HELD_FOR: Duration = Duration::from_secs(60);

    fn delivery(tag: u64) -> Delivery {
        Delivery::mock(tag, "".into(), "".into(), false, Vec::new())
    }

    fn holding(tags: &[u64]) -> Held {
        let (mut held, progress) = (Held::new(Limits::default()), Progress::default());
        for tag in tags {
            held.hold(delivery(*tag), Arc::new(progress.begin("q")));
        }
        held
    }

    fn taken(held: &mut Held) -> HeldMessage {
        held.take().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn held_messages_are_tried_in_turn_with_a_pause() {
        let mut held = holding(&[1, 2]);
        assert!(!held.is_due());
        held.wait().await;
        held.hold(delivery(3), Arc::new(Progress::default().begin("q")));
        assert!(held.is_due(), "a later one puts off no other");
        let first = taken(&mut held);
        assert_eq!(first.delivery.delivery_tag, 1);
        assert!(held.hold_longer(first).is_none());
        assert!(!held.is_due());
        assert_eq!(taken(&mut held).delivery.delivery_tag, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_held_there_is_nothing_to_wait_for() {
        assert!(timeout(HELD_FOR, holding(&[]).wait()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_given_up_after_a_minute_in_which_another_has_passed() {
        let mut held = holding(&[1]);
        held.passed();
        for (waited, passes, given_up) in
            [(HELD_FOR - RETRY_PAUSE, true, false), (Duration::ZERO, false, false), (RETRY_PAUSE, false, true)]
        {
            advance(waited).await;
            if passes {
                held.passed();
            }
            let message = taken(&mut held);
            assert_eq!(held.hold_longer(message).is_some(), given_up);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_is_given_up_while_none_passes() {
        let mut held = holding(&[1]);
        advance(HELD_FOR * 60).await;
        let message = taken(&mut held);
        assert!(held.hold_longer(message).is_none());
    }
}
