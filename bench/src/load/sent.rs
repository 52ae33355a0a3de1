use std::time::Instant;

use anyhow::{Result, ensure};

/// The orders of one run: when each was due, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Sent {
    orders: Vec<Order>,
    outstanding: usize,
}

#[derive(Debug)]
struct Order {
    due: Instant,
    owed: u8,
    told: Option<bool>,
}

impl Sent {
    /// How many orders there are; also the number of the next.
    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    /// How many answers are still owed.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// An order was sent, `copies` times.
    pub(super) fn add(&mut self, due: Instant, copies: u8) {
        self.outstanding += usize::from(copies);
        self.orders.push(Order { due, owed: copies, told: None });
    }

    /// An order was answered; tells when it was due.
    ///
    /// # Errors
    /// When it was told the opposite before, or was never sent.
    pub(super) fn answered(&mut self, number: usize, is_reserved: bool) -> Result<Instant> {
        ensure!(number < self.orders.len(), "an answer to order {number}, which was not sent");
        let order = &mut self.orders[number];
        ensure!(order.told.is_none_or(|told| told == is_reserved), "order {number} was told two things");
        order.told = Some(is_reserved);
        if order.owed > 0 {
            order.owed -= 1;
            self.outstanding -= 1;
        }
        Ok(order.due)
    }

    /// How many were told that they have their stock, and how many that they have not.
    pub(super) fn outcomes(&self) -> (u64, u64) {
        let count = |told| self.orders.iter().filter(|order| order.told == Some(told)).count() as u64;
        (count(true), count(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_of_an_order_is_owed_an_answer_and_a_surplus_one_counts_for_no_other() {
        let mut sent = Sent::default();
        sent.add(Instant::now(), 2);
        sent.add(Instant::now(), 1);
        for _ in 0..3 {
            sent.answered(0, true).unwrap();
        }
        assert_eq!(sent.outstanding(), 1);
        sent.answered(1, false).unwrap();
        assert_eq!((sent.outstanding(), sent.outcomes()), (0, (1, 1)));
    }

    #[test]
    fn two_different_answers_to_an_order_are_an_error() {
        let mut sent = Sent::default();
        sent.add(Instant::now(), 2);
        sent.answered(0, true).unwrap();
        assert_eq!(sent.answered(0, false).unwrap_err().to_string(), "order 0 was told two things");
    }

    #[test]
    fn an_answer_to_what_was_not_sent_is_an_error() {
        assert!(Sent::default().answered(0, true).is_err());
    }
}
