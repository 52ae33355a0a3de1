use std::fmt::Write;

use events::Event;
use events::orders::{OrderCompleted, OrderCreated};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

/// Products of the sample shop, with ids from 1; the one after them is sold out.
pub const PRODUCTS: i64 = 100;

/// Which products orders ask for. Each order has two lines, of one piece each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Any two.
    Spread,
    /// Any two of so many products.
    Among(i64),
    /// By Zipf's law with exponent 1, as sales are: the first product in a fifth of all lines.
    Zipf,
    /// The same product in each order, and any other.
    Hot,
    /// A product that is sold out in each order, and any other.
    SoldOut,
    /// Any two, and each order is sent twice.
    Twice,
    /// Any two, and each order comes paid: it is sold in one step.
    Paid,
}

impl Mix {
    /// The event by which an order comes, and its routing key.
    pub(super) fn event(self) -> (&'static str, &'static str) {
        match self {
            Self::Paid => (OrderCompleted::NAME, OrderCompleted::ROUTING_KEY),
            _ => (OrderCreated::NAME, OrderCreated::ROUTING_KEY),
        }
    }
}

/// Writes the bodies of orders.
pub(super) struct Orders {
    mix: Mix,
    random: SmallRng,
    zipf: Zipf<f64>,
    body: String,
}

impl Orders {
    /// Orders of a mix, the same in each run.
    pub(super) fn new(mix: Mix) -> anyhow::Result<Self> {
        anyhow::ensure!(!matches!(mix, Mix::Among(..2)), "two lines of an order need two products");
        let zipf = Zipf::new(PRODUCTS as f64, 1.0)?;
        Ok(Self { mix, random: SmallRng::seed_from_u64(1), zipf, body: String::new() })
    }

    /// The body of order `number` of `run`.
    pub(super) fn body(&mut self, run: u32, number: usize) -> &[u8] {
        let (first, second) = self.products();
        let (event, _) = self.mix.event();
        self.body.clear();
        // Writing to a string does not fail.
        let _ = write!(
            self.body,
            r#"{{"event":"{event}","order_id":"B{run:04}-{number:08}","items":[{{"product_id":{first},"quantity":1}},{{"product_id":{second},"quantity":1}}]}}"#
        );
        self.body.as_bytes()
    }

    fn products(&mut self) -> (i64, i64) {
        let first = match self.mix {
            Mix::Hot => 1,
            Mix::SoldOut => PRODUCTS + 1,
            _ => self.any(),
        };
        loop {
            let second = self.any();
            if second != first {
                return (first, second);
            }
        }
    }

    fn any(&mut self) -> i64 {
        match self.mix {
            Mix::Zipf => self.zipf.sample(&mut self.random) as i64,
            Mix::Among(products) => self.random.random_range(1..=products),
            _ => self.random.random_range(1..=PRODUCTS),
        }
    }
}

/// The run and the number of the order that an answer is about.
pub(super) fn order_of(answer: &[u8]) -> Option<(u32, usize)> {
    const BEFORE: &[u8] = br#""order_id":"B"#;
    let at = answer.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let id = std::str::from_utf8(answer.get(at..at + 13)?).ok()?;
    let (run, number) = id.split_once('-')?;
    Some((run.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(body: &[u8]) -> Vec<i64> {
        let order: serde_json::Value = serde_json::from_slice(body).unwrap();
        order["items"].as_array().unwrap().iter().map(|item| item["product_id"].as_i64().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn an_order_is_known_again_by_its_body(run in 1..10_000_u32, number in 0..100_000_000_usize) {
            let mut orders = Orders::new(Mix::Spread).unwrap();
            prop_assert_eq!(order_of(orders.body(run, number)), Some((run, number)));
        }

        #[test]
        fn any_other_bytes_name_no_order(bytes: Vec<u8>) {
            prop_assert_eq!(order_of(&bytes), None);
        }
    }

    #[test]
    fn an_order_is_one_that_the_contract_knows() {
        for mix in [Mix::Spread, Mix::Among(2), Mix::Zipf, Mix::Hot, Mix::SoldOut, Mix::Twice, Mix::Paid] {
            let mut orders = Orders::new(mix).unwrap();
            for number in 0..1_000 {
                let order: OrderCreated = serde_json::from_slice(orders.body(1, number)).unwrap();
                assert_eq!(order.order_id.as_str(), format!("B0001-{number:08}"));
                assert_eq!(order.items.len(), 2);
                assert_ne!(order.items[0].product_id, order.items[1].product_id, "{mix:?}");
            }
        }
    }

    #[test]
    fn a_mix_asks_for_what_it_says() {
        let firsts = |mix| {
            let mut orders = Orders::new(mix).unwrap();
            (0..2_000).map(|number| items(orders.body(1, number))[0]).collect::<Vec<_>>()
        };
        assert!(firsts(Mix::Hot).iter().all(|product| *product == 1));
        assert!(firsts(Mix::SoldOut).iter().all(|product| *product == PRODUCTS + 1));
        assert!(firsts(Mix::Among(1_000_000)).iter().any(|product| *product > 900_000));
        let favourite = firsts(Mix::Zipf).iter().filter(|product| **product == 1).count();
        assert!((340..440).contains(&favourite), "{favourite} of 2 000, not a fifth");
    }
}
