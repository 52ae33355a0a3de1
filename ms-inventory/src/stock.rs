//! The rule by which orders get stock: in the order of arrival, all lines or none. Pure: no I/O, no clock.

use std::collections::{BTreeMap, HashMap};

use ::events::inventory::{INSUFFICIENT_STOCK, Shortage};
use ::events::{Item, MAX_LINES, MAX_QUANTITY};

/// How much there is of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// In the warehouse.
    pub on_hand: i64,
    /// Of that, held for orders. `0 ≤ reserved ≤ on_hand`.
    pub reserved: i64,
}

impl Level {
    /// What can still be sold.
    pub fn available(self) -> i64 {
        self.on_hand - self.reserved
    }
}

/// The levels of products by id. A product that is not in it does not exist.
pub type Levels = HashMap<i64, Level>;

/// What an order asks for: one line a product, in the order of the ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines(Vec<Item>);

impl Lines {
    /// Sums lines of the same product.
    pub fn of(items: &[Item]) -> Self {
        let mut sums = BTreeMap::<i64, i64>::new();
        for item in items {
            let sum = sums.entry(item.product_id).or_default();
            *sum = sum.saturating_add(item.quantity);
        }
        Self(sums.into_iter().map(|(product_id, quantity)| Item { product_id, quantity }).collect())
    }

    /// Puts lines together that were stored as two columns.
    pub fn from_columns(product_ids: &[i64], quantities: &[i64]) -> Self {
        let pairs = product_ids.iter().zip(quantities);
        Self(pairs.map(|(&product_id, &quantity)| Item { product_id, quantity }).collect())
    }

    /// The lines.
    pub fn items(&self) -> &[Item] {
        &self.0
    }

    /// Makes what was held of them available again.
    pub fn free(&self, levels: &mut Levels) {
        for item in &self.0 {
            levels.entry(item.product_id).and_modify(|level| level.reserved -= item.quantity);
        }
    }

    /// The products, in the order of their ids.
    pub fn product_ids(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|item| item.product_id)
    }
}

/// What an order asks for, and whether that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its lines.
    pub lines: Lines,
    /// Why it cannot be filled whatever the stock is; `None` where that depends on the stock.
    pub absurdity: Option<String>,
}

impl Request {
    /// Reads the items of an order, of which any may be absurd. Of too many only the first [`MAX_LINES`] are kept.
    pub fn of(items: &[Item]) -> Self {
        let lines = Lines::of(&items[..items.len().min(MAX_LINES)]);
        let absurdity = absurdity(items, &lines);
        Self { lines, absurdity }
    }
}

fn absurdity(items: &[Item], lines: &Lines) -> Option<String> {
    if items.is_empty() {
        return Some("No items".into());
    }
    if items.len() > MAX_LINES {
        return Some(format!("More than {MAX_LINES} lines"));
    }
    if let Some(item) = items.iter().find(|item| item.quantity <= 0) {
        return Some(format!("Quantity of product {} is not positive", item.product_id));
    }
    let item = lines.items().iter().find(|item| item.quantity > MAX_QUANTITY)?;
    Some(format!("Quantity of product {} is more than {MAX_QUANTITY}", item.product_id))
}

/// What an order gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All of its lines.
    Held,
    /// Nothing.
    Rejected {
        /// Why, for people.
        reason: String,
        /// Which products were short.
        shortages: Vec<Shortage>,
    },
}

/// Decides orders one after the other: each gets all of its lines or none, from what those before it left.
pub fn decide<'a>(levels: &Levels, requests: impl IntoIterator<Item = &'a Request>) -> Vec<Decision> {
    let mut left = levels.clone();
    requests.into_iter().map(|request| decide_one(&mut left, request)).collect()
}

/// Decides one order, and takes what it gets from what is left.
pub fn decide_one(left: &mut Levels, request: &Request) -> Decision {
    if let Some(absurdity) = &request.absurdity {
        return Decision::Rejected { reason: absurdity.clone(), shortages: Vec::new() };
    }
    let items = request.lines.items();
    let shortages: Vec<Shortage> = items.iter().filter_map(|item| shortage(left, item)).collect();
    if !shortages.is_empty() {
        return Decision::Rejected { reason: reason(left, items), shortages };
    }
    for item in items {
        left.entry(item.product_id).and_modify(|level| level.reserved += item.quantity);
    }
    Decision::Held
}

/// An order may name a thousand unknown products; its answer names the first few.
const MAX_NAMED: usize = 10;

fn reason(left: &Levels, items: &[Item]) -> String {
    let unknown = || items.iter().map(|item| item.product_id).filter(|id| !left.contains_key(id));
    let named = || unknown().take(MAX_NAMED).map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    match unknown().count() {
        0 => INSUFFICIENT_STOCK.to_owned(),
        1 => format!("Unknown product {}", named()),
        2..=MAX_NAMED => format!("Unknown products {}", named()),
        more => format!("Unknown products {} and {} more", named(), more - MAX_NAMED),
    }
}

fn shortage(left: &Levels, item: &Item) -> Option<Shortage> {
    let available = left.get(&item.product_id).map_or(0, |level| level.available());
    (available < item.quantity).then_some(Shortage { product_id: item.product_id, requested: item.quantity, available })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(pairs: &[(i64, i64)]) -> Request {
        Request::of(&items(pairs))
    }

    fn items(pairs: &[(i64, i64)]) -> Vec<Item> {
        pairs.iter().map(|&(product_id, quantity)| Item { product_id, quantity }).collect()
    }

    fn levels(triples: &[(i64, i64, i64)]) -> Levels {
        triples.iter().map(|&(id, on_hand, reserved)| (id, Level { on_hand, reserved })).collect()
    }

    fn rejected(reason: &str, shortages: &[(i64, i64, i64)]) -> Decision {
        let shortage = |&(product_id, requested, available)| Shortage { product_id, requested, available };
        Decision::Rejected { reason: reason.into(), shortages: shortages.iter().map(shortage).collect() }
    }

    #[test]
    fn orders_get_all_of_their_lines_or_none_in_the_order_of_arrival() {
        let stock = levels(&[(1, 10, 4), (2, 1, 0)]);
        let orders = [
            request(&[(1, 2), (2, 1)]),
            request(&[(1, 3), (2, 1)]),
            request(&[(1, 5)]),
            request(&[]),
            request(&[(1, 4)]),
            request(&[(3, 1), (1, 1)]),
            request(&[(4, 1), (3, 1)]),
        ];
        assert_eq!(
            decide(&stock, &orders),
            [
                Decision::Held,
                rejected("Insufficient stock", &[(2, 1, 0)]),
                rejected("Insufficient stock", &[(1, 5, 4)]),
                rejected("No items", &[]),
                Decision::Held,
                rejected("Unknown product 3", &[(1, 1, 0), (3, 1, 0)]),
                rejected("Unknown products 3, 4", &[(3, 1, 0), (4, 1, 0)]),
            ]
        );
    }

    #[test]
    fn lines_are_the_same_after_they_were_stored_as_columns() {
        let lines = Lines::of(&items(&[(2, 7), (1, 3)]));
        assert_eq!(Lines::from_columns(&[1, 2], &[3, 7]), lines);
    }

    #[test]
    fn absurd_orders_say_why() {
        let absurdity = |items: &[Item]| Request::of(items).absurdity.unwrap_or_default();
        let line = |quantity| items(&[(7, quantity)]);
        assert_eq!(absurdity(&line(1)), "");
        assert_eq!(absurdity(&line(MAX_QUANTITY)), "");
        assert_eq!(absurdity(&[]), "No items");
        assert_eq!(absurdity(&line(0)), "Quantity of product 7 is not positive");
        assert_eq!(absurdity(&line(i64::MIN)), "Quantity of product 7 is not positive");
        assert_eq!(absurdity(&line(MAX_QUANTITY + 1)), "Quantity of product 7 is more than 1000000");
        assert_eq!(absurdity(&vec![line(1)[0]; MAX_LINES]), "");
        assert_eq!(absurdity(&vec![line(1)[0]; MAX_LINES + 1]), "More than 1000 lines");
        assert_eq!(absurdity(&items(&[(7, MAX_QUANTITY), (7, 1)])), "Quantity of product 7 is more than 1000000");
    }

    #[test]
    fn an_answer_names_the_first_unknown_products_only() {
        let many: Vec<(i64, i64)> = (1..=12).map(|id| (id, 1)).collect();
        let Decision::Rejected { reason, shortages } = decide(&Levels::new(), &[request(&many)]).remove(0) else {
            panic!("held")
        };
        assert_eq!(reason, "Unknown products 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
        assert_eq!(shortages.len(), 12);
    }

    /// One unit at a time, with a trial copy of the whole shop for each order.
    fn naive(levels: &Levels, orders: &[Vec<(i64, i64)>]) -> Vec<bool> {
        let mut shop: HashMap<i64, i64> = levels.iter().map(|(&id, level)| (id, level.available())).collect();
        let mut fill = |order: &Vec<(i64, i64)>| {
            let mut trial = shop.clone();
            for &(product, quantity) in order {
                for _ in 0..quantity {
                    match trial.get_mut(&product) {
                        Some(left) if *left > 0 => *left -= 1,
                        _ => return false,
                    }
                }
            }
            shop = trial;
            true
        };
        orders.iter().map(&mut fill).collect()
    }

    proptest! {
        #[test]
        fn the_rule_agrees_with_a_naive_model(
            stock in prop::collection::hash_map(1..6_i64, (0..40_i64, 0..40_i64), 0..6),
            orders in prop::collection::vec(prop::collection::vec((1..7_i64, 1..9_i64), 1..5), 0..30),
        ) {
            let stock: Levels = stock
                .into_iter()
                .map(|(id, (on_hand, reserved))| (id, Level { on_hand, reserved: reserved.min(on_hand) }))
                .collect();
            let asked: Vec<Request> = orders.iter().map(|order| request(order)).collect();
            let decisions = decide(&stock, &asked);

            let held: Vec<bool> = decisions.iter().map(|decision| *decision == Decision::Held).collect();
            prop_assert_eq!(&held, &naive(&stock, &orders));

            let mut reserved: HashMap<i64, i64> = stock.iter().map(|(&id, level)| (id, level.reserved)).collect();
            for (request, _) in asked.iter().zip(&held).filter(|(_, held)| **held) {
                for item in request.lines.items() {
                    *reserved.get_mut(&item.product_id).unwrap() += item.quantity;
                }
            }
            for (id, level) in &stock {
                prop_assert!((0..=level.on_hand).contains(&reserved[id]), "oversold {}", id);
            }
            for (Request { lines, .. }, decision) in asked.iter().zip(&decisions) {
                if let Decision::Rejected { shortages, .. } = decision {
                    prop_assert!(!shortages.is_empty());
                    prop_assert!(shortages.iter().all(|s| lines.product_ids().any(|id| id == s.product_id)));
                    prop_assert!(shortages.iter().all(|s| s.available < s.requested));
                }
            }
        }

        #[test]
        fn lines_keep_the_sum_of_each_product(
            pairs in prop::collection::vec((1..9_i64, 1..1_000_i64), 0..40),
        ) {
            let Request { lines, .. } = request(&pairs);
            prop_assert!(lines.product_ids().is_sorted());
            for item in lines.items() {
                let sum: i64 = pairs.iter().filter(|(id, _)| *id == item.product_id).map(|(_, q)| q).sum();
                prop_assert_eq!(item.quantity, sum);
            }
        }
    }
}
