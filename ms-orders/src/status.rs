//! What an order is, and what it becomes when inventory speaks. Pure.
//!
//! ```text
//! PENDING ──reserved──▶ CONFIRMED ──released──▶ CANCELLED
//!    └──────rejected or released───────────────────┘
//! ```

use events::inventory::{ReleaseCause, StockEvent};

/// What an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "order_status", rename_all = "snake_case")]
pub enum Status {
    /// Asked for, not yet answered.
    Pending,
    /// Its stock is held.
    Confirmed,
    /// It will not be fulfilled.
    Cancelled,
}

/// What inventory said of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is held.
    Reserved,
    /// None of it will be.
    Rejected,
    /// It was held and is no longer.
    Released(ReleaseCause),
}

impl From<&StockEvent> for Outcome {
    fn from(event: &StockEvent) -> Self {
        match event {
            StockEvent::Reserved(_) => Self::Reserved,
            StockEvent::Rejected(_) => Self::Rejected,
            StockEvent::Released(event) => Self::Released(event.cause),
        }
    }
}

/// What follows from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The order takes this status.
    Become(Status),
    /// Nothing: it is a repetition, or too late.
    Nothing,
    /// The order stays cancelled, and inventory holds stock for nobody: it has to be told.
    GiveBack,
}

/// What follows when inventory says `outcome` of an order in this `status`.
pub fn next(status: Status, outcome: Outcome) -> Next {
    match (status, outcome) {
        (Status::Pending, Outcome::Reserved) => Next::Become(Status::Confirmed),
        // Released before it was heard to be reserved: the two arrived in the wrong order.
        (Status::Pending, Outcome::Rejected | Outcome::Released(_)) => Next::Become(Status::Cancelled),
        (Status::Confirmed, Outcome::Released(ReleaseCause::Cancelled | ReleaseCause::Expired)) => {
            Next::Become(Status::Cancelled)
        }
        // A refund follows a payment, and an order that is only confirmed has none.
        (Status::Confirmed, Outcome::Reserved | Outcome::Rejected | Outcome::Released(ReleaseCause::Refunded)) => {
            Next::Nothing
        }
        (Status::Cancelled, Outcome::Reserved) => Next::GiveBack,
        (Status::Cancelled, Outcome::Rejected | Outcome::Released(_)) => Next::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_in_every_status_has_its_consequence() {
        use Next::{Become, GiveBack, Nothing};
        use Outcome::{Rejected, Released, Reserved};
        use ReleaseCause::{Cancelled as ByCancelling, Expired, Refunded};
        use Status::{Cancelled, Confirmed, Pending};
        let table = [
            (Pending, Reserved, Become(Confirmed)),
            (Pending, Rejected, Become(Cancelled)),
            (Pending, Released(ByCancelling), Become(Cancelled)),
            (Pending, Released(Expired), Become(Cancelled)),
            (Pending, Released(Refunded), Become(Cancelled)),
            (Confirmed, Reserved, Nothing),
            (Confirmed, Rejected, Nothing),
            (Confirmed, Released(ByCancelling), Become(Cancelled)),
            (Confirmed, Released(Expired), Become(Cancelled)),
            (Confirmed, Released(Refunded), Nothing),
            (Cancelled, Reserved, GiveBack),
            (Cancelled, Rejected, Nothing),
            (Cancelled, Released(ByCancelling), Nothing),
            (Cancelled, Released(Expired), Nothing),
            (Cancelled, Released(Refunded), Nothing),
        ];
        for (status, outcome, expected) in table {
            assert_eq!(next(status, outcome), expected, "{status:?} and {outcome:?}");
        }
    }
}
