//! Why a resolver has no answer, and how a client reads it.

use ::graphql::Refusal;
use async_graphql::Error;

use crate::account;
use crate::password::{Busy, Weak};
use crate::throttle::Slow;

/// What whoever gives a wrong password is told, and whoever names an account that does not exist or is disabled.
pub(super) fn wrong_password() -> Error {
    Refusal::unauthenticated("the e-mail address or the password is wrong").into()
}

pub(super) fn slow(slow: Slow) -> Error {
    metrics::counter!("logins_total", "outcome" => "slowed").increment(1);
    later(slow.to_string(), slow.retry_after.as_secs())
}

pub(super) fn weak(weak: Weak, field: &'static str) -> Error {
    Refusal::invalid(weak.to_string()).with("field", field).into()
}

/// A fault of hashing, which may be that others want their passwords checked, too.
pub(super) fn hashing(error: anyhow::Error) -> Error {
    match error.downcast_ref::<Busy>() {
        Some(busy) => later(busy.to_string(), 1),
        None => Error::new_with_source(error),
    }
}

pub(super) fn not_changed(error: account::Error) -> Error {
    use account::Error::{Database, EmailTaken, LastAdmin, NotAdmin, Unknown};
    let message = error.to_string();
    match error {
        Unknown(_) => Refusal::not_found(message).with("field", "userId").into(),
        EmailTaken => Refusal::conflict(message).with("field", "email").into(),
        NotAdmin => Refusal::forbidden(message).into(),
        LastAdmin => Refusal::conflict(message).with("constraint", "last_admin").into(),
        Database(error) => Error::new_with_source(anyhow::Error::from(error)),
    }
}

fn later(message: String, seconds: u64) -> Error {
    Refusal::rate_limited(message).with("retryAfterSeconds", seconds).into()
}
