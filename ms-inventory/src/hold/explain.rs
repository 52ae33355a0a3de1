use chrono::{DateTime, Utc};

use super::Status;
use super::read::Hold;

/// How an order stands with its stock, in one sentence for people.
pub fn explain(hold: &Hold) -> String {
    let answered = time(hold.created_at);
    let ended = time(hold.settled_at.unwrap_or(hold.created_at));
    match hold.status {
        Status::Held => {
            let until = hold.expires_at.map(|end| format!(" until {}", time(end))).unwrap_or_default();
            format!("Its stock was reserved on {answered} and is held{until}.")
        }
        Status::Committed => format!("Its stock was sold on {ended}."),
        Status::Released => format!("It was cancelled on {ended}, and its stock was released."),
        Status::Expired => format!("Its time ran out, and its stock was released on {ended}."),
        Status::Returned => {
            format!("It was refunded on {ended}, and its stock can be sold again{}.", written_off(hold))
        }
        Status::Rejected => {
            format!("It was rejected on {answered}: {}.", hold.reason.as_deref().unwrap_or("no reason was given"))
        }
    }
}

fn written_off(hold: &Hold) -> String {
    let items = hold.lines.items().iter().filter(|item| hold.written_off.contains(&item.product_id));
    let items: Vec<String> = items.map(|item| format!("{} of product {}", item.quantity, item.product_id)).collect();
    if items.is_empty() {
        return String::new();
    }
    format!(", but for {}: deleted meanwhile, so what came back was written off", items.join(" and "))
}

fn time(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.format("%Y-%m-%d %H:%M:%S UTC")
}

#[cfg(test)]
mod tests {
    use ::events::Item;

    use super::*;
    use crate::stock::Lines;

    #[test]
    fn each_state_says_since_when_and_why() {
        let at = |second: u32| format!("2026-11-27T00:00:{second:02}Z").parse::<DateTime<Utc>>().unwrap();
        let hold = |status, settled: Option<u32>| Hold {
            order_id: "ORD-1".into(),
            status,
            lines: Lines::of(&[Item { product_id: 1, quantity: 2 }, Item { product_id: 7, quantity: 3 }]),
            expires_at: (status == Status::Held).then(|| at(50)),
            reason: (status == Status::Rejected).then(|| "Insufficient stock".to_owned()),
            shortages: Vec::new(),
            written_off: Vec::new(),
            created_at: at(1),
            settled_at: settled.map(at),
        };
        let returned = hold(Status::Returned, Some(9));
        let written_off = Hold { written_off: vec![7], ..returned.clone() };
        for (hold, sentence) in [
            (
                hold(Status::Held, None),
                "Its stock was reserved on 2026-11-27 00:00:01 UTC and is held until 2026-11-27 00:00:50 UTC.",
            ),
            (hold(Status::Committed, Some(9)), "Its stock was sold on 2026-11-27 00:00:09 UTC."),
            (
                hold(Status::Released, Some(9)),
                "It was cancelled on 2026-11-27 00:00:09 UTC, and its stock was released.",
            ),
            (
                hold(Status::Expired, Some(9)),
                "Its time ran out, and its stock was released on 2026-11-27 00:00:09 UTC.",
            ),
            (returned, "It was refunded on 2026-11-27 00:00:09 UTC, and its stock can be sold again."),
            (
                written_off,
                "It was refunded on 2026-11-27 00:00:09 UTC, and its stock can be sold again, but for 3 of product 7: \
                 deleted meanwhile, so what came back was written off.",
            ),
            (hold(Status::Rejected, None), "It was rejected on 2026-11-27 00:00:01 UTC: Insufficient stock."),
        ] {
            assert_eq!(explain(&hold), sentence);
        }
    }
}
