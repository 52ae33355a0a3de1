use std::time::Duration;

use database::LockWait;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};
use tokio::time::Instant;

use super::{Limits, Verdict};
use crate::dead_letters::{lasting, own_headers};
use crate::publisher::Frame;

/// A message in `Q.retry` has this header: how many tries at it alone have failed.
const FAILED_TRIES: &str = "x-failed-tries";

/// A message of which a row is locked is dead when so many tries at it alone have failed, and others pass.
const MAX_TRIES: u32 = 7;

/// On its way to `Q.retry`, from where the broker returns the message to its queue `Q` after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    failed_tries: u32,
    after: Duration,
}

impl Retry {
    /// The message with its body and its properties.
    pub(super) fn frame<'a>(self, queue: &str, delivery: &'a Delivery) -> Frame<'a> {
        let mut headers = own_headers(&delivery.properties);
        headers.insert(FAILED_TRIES.into(), AMQPValue::LongUInt(self.failed_tries));
        let expiration = ShortString::from(self.after.as_millis().to_string());
        Frame {
            exchange: events::queues::DEAD_LETTERS,
            routing_key: events::queues::retry(queue).into(),
            mandatory: true,
            body: &delivery.data,
            properties: lasting(&delivery.properties).with_headers(headers).with_expiration(expiration),
        }
    }
}

/// How many tries at a message alone have failed; `None` if it does not come from `Q.retry`.
pub(super) fn failed_tries(delivery: &Delivery) -> Option<u32> {
    match delivery.properties.headers().as_ref()?.inner().get(FAILED_TRIES)? {
        AMQPValue::LongUInt(tries) => Some(*tries),
        _ => None,
    }
}

/// Decides what becomes of messages that need a row which somebody has locked.
///
/// Each goes through `Q.retry`, and so others pass. One is dead after [`MAX_TRIES`], because who locks a row and forgets it must
/// not have messages pile up; but not while none passes: then somebody may have locked a table, and they are tried for as long as
/// that takes.
#[derive(Debug)]
pub(super) struct Retries {
    after: Duration,
    passed: Option<Instant>,
    locked: Option<Instant>,
}

impl Retries {
    pub(super) fn new(limits: Limits) -> Self {
        Self { after: limits.retry_after(), passed: None, locked: None }
    }

    /// Remembers that a message has passed.
    pub(super) fn passed(&mut self) {
        self.passed = Some(Instant::now());
    }

    /// How long new messages wait for locks: briefly while it is known that some row stays locked. What waits for it comes from
    /// `Q.retry` before that is forgotten.
    pub(super) fn lock_wait(&self) -> LockWait {
        let is_known = self.locked.is_some_and(|locked| locked.elapsed() < self.after * 2);
        if is_known { LockWait::Brief } else { LockWait::Usual }
    }

    /// Others pass if one did within this time. Shorter than [`MAX_TRIES`] take, so that nobody's table lock, during which
    /// nothing passes, costs a message.
    fn passes_for(&self) -> Duration {
        self.after * (MAX_TRIES - 1)
    }

    /// What becomes of a message of which a row is locked.
    pub(super) fn verdict(&mut self, delivery: &Delivery) -> Verdict {
        self.locked = Some(Instant::now());
        let failed_tries = failed_tries(delivery).unwrap_or_default().saturating_add(1);
        let passes = self.passed.is_some_and(|passed| passed.elapsed() < self.passes_for());
        if failed_tries >= MAX_TRIES && passes {
            return Verdict::Dead("a row it needs stays locked".to_owned());
        }
        Verdict::Retry(Retry { failed_tries, after: self.after })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn fresh() -> Delivery {
        Delivery::mock(1, "".into(), "".into(), false, b"body".to_vec())
    }

    /// The message as it comes back from `Q.retry`; `None` if it is dead.
    fn after_a_try(retries: &mut Retries, message: &Delivery) -> Option<Delivery> {
        let Verdict::Retry(retry) = retries.verdict(message) else { return None };
        let mut back = fresh();
        back.properties = retry.frame("q", message).properties;
        Some(back)
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_dead_after_seven_tries_while_others_pass() {
        let mut retries = Retries::new(Limits::default());
        let mut message = fresh();
        for tries in 1..MAX_TRIES {
            message = after_a_try(&mut retries, &message).unwrap();
            assert_eq!(failed_tries(&message), Some(tries));
        }
        message = after_a_try(&mut retries, &message).expect("none has passed yet");
        retries.passed();
        assert!(after_a_try(&mut retries, &message).is_none());
        advance(retries.passes_for()).await;
        assert!(after_a_try(&mut retries, &message).is_some(), "none passes any more");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_row_is_known_to_be_locked_new_messages_wait_briefly() {
        let mut retries = Retries::new(Limits::default());
        assert_eq!(retries.lock_wait(), LockWait::Usual);
        retries.verdict(&fresh());
        // It comes back before that is forgotten.
        advance(Limits::default().retry_after()).await;
        assert_eq!(retries.lock_wait(), LockWait::Brief);
        advance(Limits::default().retry_after()).await;
        assert_eq!(retries.lock_wait(), LockWait::Usual);
    }

    #[test]
    fn a_message_goes_through_the_retry_queue_with_its_body_and_for_a_while() {
        let message = fresh();
        let frame = Retry { failed_tries: 2, after: Duration::from_secs(5) }.frame("q", &message);
        assert_eq!((frame.exchange, &*frame.routing_key, frame.body), ("dead-letters", "q.retry", &b"body"[..]));
        assert_eq!(frame.properties.expiration().as_ref().unwrap().as_str(), "5000");
        assert_eq!(*frame.properties.delivery_mode(), Some(2));
    }
}
