//! What an order is, and what it becomes by what happens. Pure.
//!
//! ```text
//! PENDING ──reserved──▶ CONFIRMED ──paid──▶ COMPLETED ──refunded, or the goods were gone──▶ REFUNDED
//!    │                      │
//!    │ rejected, released,  │ declined, rejected, released,
//!    │ cancelled or         │ cancelled or
//!    │ never answered       │ never answered
//!    └──────────────────────┴──▶ CANCELLED
//! ```

use events::inventory::{ReleaseCause, StockEvent};

/// What an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "order_status", rename_all = "snake_case")]
pub enum Status {
    /// Asked for, not yet answered.
    Pending,
    /// Its stock is held, and it is to be paid.
    Confirmed,
    /// It is paid.
    Completed,
    /// Its payment was given back.
    Refunded,
    /// It will not be fulfilled, and costs nothing.
    Cancelled,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Completed => "COMPLETED",
            Self::Refunded => "REFUNDED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

/// What can happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Inventory holds all of it, for a time.
    Reserved,
    /// Inventory has sold all of it, for good.
    Sold,
    /// Inventory gives it nothing.
    Rejected,
    /// Inventory held it, or had sold it, and has it back.
    Released(ReleaseCause),
    /// The payment was made.
    Paid,
    /// The payment was declined.
    Declined,
    /// Somebody cancels it.
    Cancelled,
    /// Somebody has its payment given back.
    Refunded,
    /// Inventory never answered, though it was asked again and again.
    Unanswered,
}

impl From<&StockEvent> for Happening {
    fn from(event: &StockEvent) -> Self {
        match event {
            // What is sold is held without an end.
            StockEvent::Reserved(event) if event.expires_at.is_some() => Self::Reserved,
            StockEvent::Reserved(_) => Self::Sold,
            StockEvent::Rejected(_) => Self::Rejected,
            StockEvent::Released(event) => Self::Released(event.cause),
        }
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The order takes this status.
    Become(Status),
    /// It stays what it is, and inventory has said what it still had to say.
    Answered,
    /// Nothing: it is a repetition, or too late.
    Nothing,
    /// The order stays cancelled, and inventory holds stock for nobody: it has to be told.
    GiveBack,
}

/// What follows when this happens to an order in this `status`.
pub fn next(status: Status, happening: Happening) -> Next {
    use Happening as H;
    use Next::{Answered, Become, GiveBack, Nothing};
    use Status::{Cancelled, Completed, Confirmed, Pending, Refunded};
    match (status, happening) {
        // An inventory that does not say until when holds it without an end.
        (Pending, H::Reserved | H::Sold) => Become(Confirmed),
        // Released before it was heard to be reserved: the two arrived in the wrong order.
        (Pending, H::Rejected | H::Released(_) | H::Cancelled | H::Unanswered) => Become(Cancelled),
        // An unanswered order is not paid.
        (Pending, H::Paid | H::Declined | H::Refunded) => Nothing,

        (Confirmed, H::Paid) => Become(Completed),
        (Confirmed, H::Declined | H::Cancelled | H::Unanswered) => Become(Cancelled),
        // Nothing is held for it any more, so it must not be charged. Rejected and returned are final for inventory, so
        // neither is out of date, however late it comes.
        (Confirmed, H::Rejected | H::Released(_)) => Become(Cancelled),
        // Refunded: a refund follows a payment, and an order that is only confirmed has none.
        (Confirmed, H::Reserved | H::Sold | H::Refunded) => Nothing,

        (Completed, H::Sold) => Answered,
        // Its time was up before inventory heard of the payment, and others have bought the rest; or inventory has taken
        // its goods back.
        (Completed, H::Rejected | H::Refunded | H::Released(ReleaseCause::Refunded)) => Become(Refunded),
        // Its time was up, and inventory is still to hear of the payment and to try again.
        (
            Completed,
            H::Reserved
            | H::Released(ReleaseCause::Cancelled | ReleaseCause::Expired)
            | H::Paid
            | H::Declined
            | H::Cancelled
            | H::Unanswered,
        ) => Nothing,

        (Refunded, H::Sold | H::Rejected | H::Released(ReleaseCause::Refunded)) => Answered,
        (
            Refunded,
            H::Reserved
            | H::Released(ReleaseCause::Cancelled | ReleaseCause::Expired)
            | H::Paid
            | H::Declined
            | H::Cancelled
            | H::Refunded
            | H::Unanswered,
        ) => Nothing,

        // Sold: by an inventory that does not say until when it holds.
        (Cancelled, H::Reserved | H::Sold) => GiveBack,
        (
            Cancelled,
            H::Rejected | H::Released(_) | H::Paid | H::Declined | H::Cancelled | H::Refunded | H::Unanswered,
        ) => Nothing,
    }
}

#[cfg(test)]
mod tests {
    use events::OrderId;
    use events::inventory::{StockRejected, StockReleased, StockReserved};

    use super::*;

    /// Held with an end, sold without one: confused, an order that is only held would count as sold, or the other way round.
    #[test]
    fn each_event_of_inventory_is_something_else_that_happens() {
        let order_id = OrderId::try_from("A".to_owned()).unwrap();
        let reserved = StockReserved { order_id: order_id.clone(), items: vec![], expires_at: None };
        let held = StockReserved { expires_at: Some(chrono::DateTime::UNIX_EPOCH), ..reserved.clone() };
        let rejected = StockRejected { order_id: order_id.clone(), reason: String::new(), shortages: vec![] };
        assert_eq!(Happening::from(&StockEvent::Reserved(held)), Happening::Reserved);
        assert_eq!(Happening::from(&StockEvent::Reserved(reserved)), Happening::Sold);
        assert_eq!(Happening::from(&StockEvent::Rejected(rejected)), Happening::Rejected);
        for cause in [ReleaseCause::Cancelled, ReleaseCause::Expired, ReleaseCause::Refunded] {
            let released = StockReleased { order_id: order_id.clone(), items: vec![], cause, written_off: vec![] };
            assert_eq!(Happening::from(&StockEvent::Released(released)), Happening::Released(cause));
        }
    }

    /// A refusal names the status, and clients read it there.
    #[test]
    fn a_status_is_written_as_in_graphql() {
        let all = [Status::Pending, Status::Confirmed, Status::Completed, Status::Refunded, Status::Cancelled];
        assert_eq!(all.map(|it| it.to_string()), ["PENDING", "CONFIRMED", "COMPLETED", "REFUNDED", "CANCELLED"]);
    }

    #[test]
    fn everything_that_happens_in_every_status_has_its_consequence() {
        use Happening as H;
        use Next::{Answered, Become, GiveBack, Nothing};
        use ReleaseCause as R;
        use Status::{Cancelled, Completed, Confirmed, Pending, Refunded};
        let statuses = [Pending, Confirmed, Completed, Refunded, Cancelled];
        #[rustfmt::skip]
        let table = [
            (H::Reserved,              [Become(Confirmed), Nothing,           Nothing,          Nothing,  GiveBack]),
            (H::Sold,                  [Become(Confirmed), Nothing,           Answered,         Answered, GiveBack]),
            (H::Rejected,              [Become(Cancelled), Become(Cancelled), Become(Refunded), Answered, Nothing]),
            (H::Released(R::Cancelled), [Become(Cancelled), Become(Cancelled), Nothing,         Nothing,  Nothing]),
            (H::Released(R::Expired),  [Become(Cancelled), Become(Cancelled), Nothing,          Nothing,  Nothing]),
            (H::Released(R::Refunded), [Become(Cancelled), Become(Cancelled), Become(Refunded), Answered, Nothing]),
            (H::Paid,                  [Nothing,           Become(Completed), Nothing,          Nothing,  Nothing]),
            (H::Declined,              [Nothing,           Become(Cancelled), Nothing,          Nothing,  Nothing]),
            (H::Cancelled,             [Become(Cancelled), Become(Cancelled), Nothing,          Nothing,  Nothing]),
            (H::Refunded,              [Nothing,           Nothing,           Become(Refunded), Nothing,  Nothing]),
            (H::Unanswered,            [Become(Cancelled), Become(Cancelled), Nothing,          Nothing,  Nothing]),
        ];
        for (happening, row) in table {
            for (status, expected) in statuses.into_iter().zip(row) {
                assert_eq!(next(status, happening), expected, "{status:?} and {happening:?}");
            }
        }
    }
}
