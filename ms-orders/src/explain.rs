//! How an order stands, in one sentence for people: what it waits for, and since when. Pure.

use chrono::{DateTime, Utc};

use crate::order::Order;
use crate::payment::{Payment, Status as PaymentStatus};
use crate::status::Status;

/// How it stands, by its own state and that of its payment.
pub fn explain(order: &Order, payment: Option<&Payment>) -> String {
    let since = time(order.updated_at);
    let reason = order.reason.as_deref().unwrap_or_default();
    match order.status {
        Status::Pending => format!("Waits since {since} for inventory to answer{}.", asked(order)),
        Status::Confirmed => {
            let until = order.expires_at.map(|end| format!(" until {}", time(end))).unwrap_or_default();
            format!("Its stock is held{until}; {}.", due(payment))
        }
        Status::Completed if order.overdue_at.is_some() => {
            format!("Paid; waits since {since} for inventory to sell its stock{}.", asked(order))
        }
        Status::Completed => format!("Paid on {since} and sold; nothing is outstanding."),
        Status::Refunded if order.overdue_at.is_some() => {
            format!(
                "Refunded: {reason}; waits since {since} for inventory to take the goods back{}, and {}.",
                asked(order),
                back(payment)
            )
        }
        Status::Refunded => format!("Refunded on {since}: {reason}; {}{}.", back(payment), written_off(order)),
        Status::Cancelled => match payment {
            Some(Payment { status: PaymentStatus::Returned, updated_at, .. }) => {
                format!("Cancelled on {since}: {reason}; nothing is charged since {}.", time(*updated_at))
            }
            Some(Payment { status: PaymentStatus::Returning, attempts, .. }) => {
                format!(
                    "Cancelled on {since}: {reason}; what may have been charged is being given back, tried {attempts} times."
                )
            }
            _ => format!("Cancelled on {since}: {reason}; nothing was paid."),
        },
    }
}

fn written_off(order: &Order) -> String {
    let items = order.written_off.iter().flat_map(|items| &items.0);
    let items: Vec<String> = items.map(|item| format!("{} of product {}", item.quantity, item.product_id)).collect();
    if items.is_empty() {
        return String::new();
    }
    format!("; what came back was written off where its product had been deleted: {}", items.join(" and "))
}

fn asked(order: &Order) -> String {
    let again = match order.asks {
        0 => return String::new(),
        1 => ", which was asked again once".to_owned(),
        asks => format!(", which was asked again {asks} times"),
    };
    match order.overdue_at {
        Some(next) => format!("{again} and will be at {}", time(next)),
        None => again,
    }
}

fn due(payment: Option<&Payment>) -> String {
    let Some(payment) = payment else { return "its payment is not due yet".to_owned() };
    match (payment.attempts, payment.next_attempt_at) {
        (0, Some(at)) => format!("its payment is due at {}", time(at)),
        (attempts, Some(at)) => {
            format!(
                "its payment was tried {attempts} times since {} and will be at {}",
                time(payment.updated_at),
                time(at)
            )
        }
        (_, None) => "its payment is being made".to_owned(),
    }
}

fn back(payment: Option<&Payment>) -> String {
    match payment {
        Some(Payment { status: PaymentStatus::Returned, updated_at, .. }) => {
            format!("the payment was given back on {}", time(*updated_at))
        }
        Some(Payment { status: PaymentStatus::Returning, attempts, updated_at, .. }) => {
            format!("the payment is being given back since {}, tried {attempts} times", time(*updated_at))
        }
        _ => "there was no payment".to_owned(),
    }
}

fn time(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.format("%Y-%m-%d %H:%M:%S UTC")
}

#[cfg(test)]
mod tests {
    use events::Item;
    use sqlx::types::Json;

    use super::*;

    fn at(second: u32) -> DateTime<Utc> {
        format!("2026-11-27T00:00:{second:02}Z").parse().unwrap()
    }

    fn order(status: Status) -> Order {
        Order {
            user_id: None,
            id: "ORD-1".into(),
            status,
            idempotency_key: None,
            subtotal: 10.into(),
            fee: 2.into(),
            total: 12.into(),
            payment_reference: None,
            expires_at: None,
            reason: matches!(status, Status::Cancelled | Status::Refunded).then(|| "too late".to_owned()),
            shortages: None,
            written_off: None,
            created_at: at(0),
            updated_at: at(1),
            overdue_at: None,
            asks: 0,
        }
    }

    fn payment(status: PaymentStatus, attempts: i32, next: Option<u32>) -> Payment {
        Payment {
            order_id: "ORD-1".into(),
            status,
            amount: 12.into(),
            attempts,
            next_attempt_at: next.map(at),
            updated_at: at(2),
        }
    }

    #[test]
    fn each_state_says_what_it_waits_for_and_since_when() {
        let waiting = |status, asks| Order { overdue_at: Some(at(30)), asks, ..order(status) };
        let held = Order { expires_at: Some(at(50)), ..waiting(Status::Confirmed, 0) };
        for (order, payment, sentence) in [
            (waiting(Status::Pending, 0), None, "Waits since 2026-11-27 00:00:01 UTC for inventory to answer."),
            (
                waiting(Status::Pending, 2),
                None,
                "Waits since 2026-11-27 00:00:01 UTC for inventory to answer, which was asked again 2 times and will be at \
                 2026-11-27 00:00:30 UTC.",
            ),
            (
                held.clone(),
                Some(payment(PaymentStatus::Due, 0, Some(11))),
                "Its stock is held until 2026-11-27 00:00:50 UTC; its payment is due at 2026-11-27 00:00:11 UTC.",
            ),
            (
                held,
                Some(payment(PaymentStatus::Due, 3, Some(11))),
                "Its stock is held until 2026-11-27 00:00:50 UTC; its payment was tried 3 times since 2026-11-27 00:00:02 UTC \
                 and will be at 2026-11-27 00:00:11 UTC.",
            ),
            (
                waiting(Status::Completed, 1),
                Some(payment(PaymentStatus::Paid, 1, None)),
                "Paid; waits since 2026-11-27 00:00:01 UTC for inventory to sell its stock, which was asked again once and \
                 will be at 2026-11-27 00:00:30 UTC.",
            ),
            (
                order(Status::Completed),
                Some(payment(PaymentStatus::Paid, 1, None)),
                "Paid on 2026-11-27 00:00:01 UTC and sold; nothing is outstanding.",
            ),
            (
                waiting(Status::Refunded, 0),
                Some(payment(PaymentStatus::Returning, 1, Some(9))),
                "Refunded: too late; waits since 2026-11-27 00:00:01 UTC for inventory to take the goods back, and the \
                 payment is being given back since 2026-11-27 00:00:02 UTC, tried 1 times.",
            ),
            (
                order(Status::Refunded),
                Some(payment(PaymentStatus::Returned, 1, None)),
                "Refunded on 2026-11-27 00:00:01 UTC: too late; the payment was given back on 2026-11-27 00:00:02 UTC.",
            ),
            (
                Order { written_off: Some(Json(vec![Item { product_id: 7, quantity: 2 }])), ..order(Status::Refunded) },
                Some(payment(PaymentStatus::Returned, 1, None)),
                "Refunded on 2026-11-27 00:00:01 UTC: too late; the payment was given back on 2026-11-27 00:00:02 UTC; what \
                 came back was written off where its product had been deleted: 2 of product 7.",
            ),
            (
                order(Status::Cancelled),
                Some(payment(PaymentStatus::Declined, 1, None)),
                "Cancelled on 2026-11-27 00:00:01 UTC: too late; nothing was paid.",
            ),
            (
                order(Status::Cancelled),
                Some(payment(PaymentStatus::Returned, 1, None)),
                "Cancelled on 2026-11-27 00:00:01 UTC: too late; nothing is charged since 2026-11-27 00:00:02 UTC.",
            ),
        ] {
            assert_eq!(explain(&order, payment.as_ref()), sentence);
        }
    }
}
