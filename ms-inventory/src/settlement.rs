//! The rule by which orders end: what becomes of their holds and of stock. Pure: no I/O, no clock.
//!
//! ```text
//! held ──paid──▶ committed ──refunded──▶ returned
//!  ├──cancelled──▶ released ─┐
//!  └──time is up─▶ expired ──┴─paid──▶ committed, or rejected when the stock is gone
//! ```
//!
//! An order that ends before anybody heard of it is committed or rejected when it is paid, and otherwise remembered as
//! rejected, so that it gets nothing when it comes.

use std::collections::{BTreeSet, HashMap};

use ::events::OrderId;
use ::events::inventory::{ReleaseCause, Shortage};

use crate::hold::Status;
use crate::ledger::Reason;
use crate::stock::{Decision, Levels, Lines, Request, decide_one};

/// The reason given to an order whose cancellation came first.
const CANCELLED_FIRST: &str = "Order was cancelled";

/// The reason given to an order whose refund came first.
const REFUNDED_FIRST: &str = "Order was refunded";

/// How an order ended, as its service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is paid; with what it asks for, where that is told.
    Completed(Option<Request>),
    /// It will not be fulfilled.
    Cancelled,
    /// The payment was given back; whether the goods come back too.
    Refunded {
        /// Whether they can be sold again.
        restock: bool,
    },
}

/// What is known of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What became of it.
    pub status: Status,
    /// What it asks for; `None` where it ended before it came.
    pub lines: Option<Lines>,
    /// Why it was rejected; empty where it was not.
    pub reason: String,
    /// The products that were short.
    pub shortages: Vec<Shortage>,
    /// The products whose goods came back and were written off.
    pub written_off: Vec<i64>,
}

/// What the order's service is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is sold.
    Sold(Lines),
    /// This can be sold to others again.
    Released(Lines, ReleaseCause),
    /// It was refunded, and this can be sold to others again.
    Returned {
        /// What it was refunded for.
        lines: Lines,
        /// The products of which nothing can be sold, because they were deleted before the goods came back.
        written_off: Vec<i64>,
    },
    /// It got nothing, and gets nothing.
    Rejected {
        /// Why, for people.
        reason: String,
        /// The products that were short.
        shortages: Vec<Shortage>,
    },
    /// Nothing: there was nothing to be done.
    Nothing,
    /// The event makes no sense, for this reason.
    Absurd(String),
}

/// Goods that left the warehouse for an order, came back, or were written off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// The order.
    pub order_id: OrderId,
    /// The product.
    pub product_id: i64,
    /// Negative when they left.
    pub quantity: i64,
    /// Committed, returned, or adjusted where they were written off.
    pub reason: Reason,
}

/// Stock and orders while these end, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// The levels of all products concerned that exist.
    pub levels: Levels,
    /// The orders that are known.
    pub orders: HashMap<OrderId, Known>,
    /// What left and came back meanwhile.
    pub movements: Vec<Movement>,
    /// Products of which an order did not get what it asked for.
    pub short: BTreeSet<i64>,
}

impl Books {
    /// Opens them on what is known.
    pub fn open(levels: Levels, orders: HashMap<OrderId, Known>) -> Self {
        Self { levels, orders, movements: Vec::new(), short: BTreeSet::new() }
    }

    /// Ends an order. To end it again in the same way changes nothing, and is answered in the same way.
    pub fn settle(&mut self, order_id: &OrderId, ending: &Ending) -> Answer {
        match ending {
            Ending::Completed(request) => self.complete(order_id, request.as_ref()),
            Ending::Cancelled => self.cancel(order_id),
            Ending::Refunded { restock: true } => self.take_back(order_id),
            // The goods are gone, and were booked when they went.
            Ending::Refunded { restock: false } => Answer::Nothing,
        }
    }

    fn complete(&mut self, order_id: &OrderId, asked: Option<&Request>) -> Answer {
        let request = match (self.orders.get(order_id), asked) {
            (None, None) => {
                return Answer::Absurd(format!("order {order_id} is not known, and its items are not told"));
            }
            (None, Some(asked)) => asked.clone(),
            (Some(Known { lines: Some(lines), .. }), Some(asked)) if *lines != asked.lines => {
                return Answer::Absurd(format!("conflict: order {order_id} asked for other items before"));
            }
            (Some(known), _) => match (known.status, known.lines.clone()) {
                (Status::Held, Some(lines)) => {
                    lines.free(&mut self.levels);
                    return self.sell(order_id, lines);
                }
                (Status::Committed, Some(lines)) => return Answer::Sold(lines),
                (Status::Returned, Some(lines)) => {
                    return Answer::Returned { lines, written_off: known.written_off.clone() };
                }
                (Status::Released | Status::Expired, Some(lines)) => Request { lines, absurdity: None },
                _ => return known.rejection(),
            },
        };
        match decide_one(&mut self.levels, &request) {
            Decision::Held => {
                request.lines.free(&mut self.levels);
                self.sell(order_id, request.lines)
            }
            Decision::Rejected { reason, shortages } => {
                self.short.extend(shortages.iter().map(|shortage| shortage.product_id));
                self.reject(order_id, Some(request.lines), reason, shortages)
            }
        }
    }

    fn cancel(&mut self, order_id: &OrderId) -> Answer {
        let Some(known) = self.orders.get(order_id) else {
            self.reject(order_id, None, CANCELLED_FIRST.to_owned(), Vec::new());
            return Answer::Nothing;
        };
        match (known.status, known.lines.clone()) {
            (Status::Held, Some(lines)) => {
                lines.free(&mut self.levels);
                self.turn(order_id, Status::Released, lines.clone(), Vec::new());
                Answer::Released(lines, ReleaseCause::Cancelled)
            }
            (Status::Released, Some(lines)) => Answer::Released(lines, ReleaseCause::Cancelled),
            _ => Answer::Nothing,
        }
    }

    fn take_back(&mut self, order_id: &OrderId) -> Answer {
        let Some(known) = self.orders.get(order_id) else {
            return self.reject(order_id, None, REFUNDED_FIRST.to_owned(), Vec::new());
        };
        let (status, Some(lines)) = (known.status, known.lines.clone()) else { return known.rejection() };
        let mut written_off = known.written_off.clone();
        match status {
            Status::Rejected => return known.rejection(),
            Status::Held => lines.free(&mut self.levels),
            Status::Committed => written_off = self.restock(order_id, &lines),
            Status::Released | Status::Expired | Status::Returned => (),
        }
        self.turn(order_id, Status::Returned, lines.clone(), written_off.clone());
        Answer::Returned { lines, written_off }
    }

    fn sell(&mut self, order_id: &OrderId, lines: Lines) -> Answer {
        for item in lines.items() {
            self.levels.entry(item.product_id).and_modify(|level| level.on_hand -= item.quantity);
            self.book(order_id, item.product_id, -item.quantity, Reason::Committed);
        }
        self.turn(order_id, Status::Committed, lines.clone(), Vec::new());
        Answer::Sold(lines)
    }

    /// Books goods in. Those of products that were deleted have no stock to go to: they are written off, and these
    /// products are returned.
    fn restock(&mut self, order_id: &OrderId, lines: &Lines) -> Vec<i64> {
        let mut written_off = Vec::new();
        for item in lines.items() {
            self.book(order_id, item.product_id, item.quantity, Reason::Returned);
            match self.levels.get_mut(&item.product_id) {
                Some(level) => level.on_hand += item.quantity,
                None => {
                    self.book(order_id, item.product_id, -item.quantity, Reason::Adjusted);
                    written_off.push(item.product_id);
                }
            }
        }
        written_off
    }

    fn book(&mut self, order_id: &OrderId, product_id: i64, quantity: i64, reason: Reason) {
        self.movements.push(Movement { order_id: order_id.clone(), product_id, quantity, reason });
    }

    fn turn(&mut self, order_id: &OrderId, status: Status, lines: Lines, written_off: Vec<i64>) {
        let (reason, shortages) = (String::new(), Vec::new());
        self.orders.insert(order_id.clone(), Known { status, lines: Some(lines), reason, shortages, written_off });
    }

    fn reject(&mut self, order_id: &OrderId, lines: Option<Lines>, reason: String, shortages: Vec<Shortage>) -> Answer {
        let known = Known { status: Status::Rejected, lines, reason, shortages, written_off: Vec::new() };
        let answer = known.rejection();
        self.orders.insert(order_id.clone(), known);
        answer
    }
}

impl Known {
    fn rejection(&self) -> Answer {
        Answer::Rejected { reason: self.reason.clone(), shortages: self.shortages.clone() }
    }
}

#[cfg(test)]
mod tests {
    use ::events::Item;
    use proptest::prelude::*;

    use super::*;
    use crate::stock::Level;

    fn id(text: &str) -> OrderId {
        OrderId::try_from(text.to_owned()).unwrap()
    }

    fn lines(quantity: i64) -> Lines {
        Lines::of(&[Item { product_id: 1, quantity }])
    }

    fn known(status: Status) -> Known {
        let reason = if status == Status::Rejected { "Insufficient stock" } else { "" };
        let (reason, shortages) = (reason.to_owned(), Vec::new());
        Known { status, lines: Some(lines(2)), reason, shortages, written_off: Vec::new() }
    }

    /// Order A of two, in a shop with ten of which three are held.
    fn books(status: Option<Status>) -> Books {
        let levels = Levels::from([(1, Level { on_hand: 10, reserved: 3 })]);
        Books::open(levels, status.map(|status| (id("A"), known(status))).into_iter().collect())
    }

    fn completed(quantity: i64) -> Ending {
        Ending::Completed(Some(Request::of(lines(quantity).items())))
    }

    const SOLD: &str = "sold";
    const RELEASED: &str = "released";
    const REFUNDED: &str = "refunded";
    const REJECTED: &str = "rejected";
    const NOTHING: &str = "nothing";

    fn word(answer: &Answer) -> &'static str {
        match answer {
            Answer::Sold(_) => SOLD,
            Answer::Returned { .. } => REFUNDED,
            Answer::Released(..) => RELEASED,
            Answer::Rejected { .. } => REJECTED,
            Answer::Nothing => NOTHING,
            Answer::Absurd(_) => "absurd",
        }
    }

    #[test]
    fn every_ending_of_every_hold_has_its_consequence() {
        use Status::{Committed, Expired, Held, Rejected, Released, Returned};
        let paid = completed(2);
        let (cancelled, refunded) = (Ending::Cancelled, Ending::Refunded { restock: true });
        let kept = Ending::Refunded { restock: false };
        // What it was, how it ends, what it is told, what it becomes, on hand, reserved.
        let table = [
            (None, &paid, SOLD, Some(Committed), 8, 3),
            (Some(Held), &paid, SOLD, Some(Committed), 8, 1),
            (Some(Committed), &paid, SOLD, Some(Committed), 10, 3),
            (Some(Released), &paid, SOLD, Some(Committed), 8, 3),
            (Some(Expired), &paid, SOLD, Some(Committed), 8, 3),
            (Some(Returned), &paid, REFUNDED, Some(Returned), 10, 3),
            (Some(Rejected), &paid, REJECTED, Some(Rejected), 10, 3),
            (None, &cancelled, NOTHING, Some(Rejected), 10, 3),
            (Some(Held), &cancelled, RELEASED, Some(Released), 10, 1),
            (Some(Committed), &cancelled, NOTHING, Some(Committed), 10, 3),
            (Some(Released), &cancelled, RELEASED, Some(Released), 10, 3),
            (Some(Expired), &cancelled, NOTHING, Some(Expired), 10, 3),
            (Some(Returned), &cancelled, NOTHING, Some(Returned), 10, 3),
            (Some(Rejected), &cancelled, NOTHING, Some(Rejected), 10, 3),
            (None, &refunded, REJECTED, Some(Rejected), 10, 3),
            (Some(Held), &refunded, REFUNDED, Some(Returned), 10, 1),
            (Some(Committed), &refunded, REFUNDED, Some(Returned), 12, 3),
            (Some(Released), &refunded, REFUNDED, Some(Returned), 10, 3),
            (Some(Expired), &refunded, REFUNDED, Some(Returned), 10, 3),
            (Some(Returned), &refunded, REFUNDED, Some(Returned), 10, 3),
            (Some(Rejected), &refunded, REJECTED, Some(Rejected), 10, 3),
            (None, &kept, NOTHING, None, 10, 3),
            (Some(Held), &kept, NOTHING, Some(Held), 10, 3),
            (Some(Committed), &kept, NOTHING, Some(Committed), 10, 3),
        ];
        for (was, ending, told, becomes, on_hand, reserved) in table {
            let mut books = books(was);
            let case = format!("{was:?} and {ending:?}");
            assert_eq!(word(&books.settle(&id("A"), ending)), told, "{case}");
            assert_eq!(books.orders.get(&id("A")).map(|known| known.status), becomes, "{case}");
            assert_eq!(books.levels[&1], Level { on_hand, reserved }, "{case}");
            assert_eq!(books.movements.iter().map(|moved| moved.quantity).sum::<i64>(), on_hand - 10, "{case}");
        }
    }

    #[test]
    fn paid_after_its_time_and_sold_out_is_rejected_for_ever() {
        let mut books = books(Some(Status::Expired));
        books.levels.insert(1, Level { on_hand: 10, reserved: 9 });
        let first = books.settle(&id("A"), &Ending::Completed(None));
        let shortages = vec![Shortage { product_id: 1, requested: 2, available: 1 }];
        assert_eq!(first, Answer::Rejected { reason: "Insufficient stock".into(), shortages });
        assert_eq!(books.short, BTreeSet::from([1]));
        books.levels.insert(1, Level { on_hand: 10, reserved: 0 });
        assert_eq!(books.settle(&id("A"), &Ending::Completed(None)), first);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        for (was, ending, reason) in [
            (None, Ending::Completed(None), "order A is not known, and its items are not told"),
            (Some(Status::Held), completed(3), "conflict: order A asked for other items before"),
            (Some(Status::Committed), completed(3), "conflict: order A asked for other items before"),
        ] {
            let mut after = books(was);
            assert_eq!(after.settle(&id("A"), &ending), Answer::Absurd(reason.to_owned()));
            assert_eq!(after, books(was));
        }
    }

    #[test]
    fn goods_of_a_product_that_is_gone_are_booked_in_and_written_off_once() {
        let mut books = books(Some(Status::Committed));
        books.levels.clear();
        for _ in 0..2 {
            let told = books.settle(&id("A"), &Ending::Refunded { restock: true });
            assert_eq!(told, Answer::Returned { lines: lines(2), written_off: vec![1] });
        }
        let booked: Vec<_> = books.movements.iter().map(|moved| (moved.quantity, moved.reason)).collect();
        assert_eq!(booked, [(2, Reason::Returned), (-2, Reason::Adjusted)]);
        assert!(books.levels.is_empty());
    }

    fn ending() -> impl Strategy<Value = Ending> {
        prop_oneof![
            Just(Ending::Cancelled),
            any::<bool>().prop_map(|restock| Ending::Refunded { restock }),
            (1..6_i64).prop_map(completed),
            Just(Ending::Completed(None)),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order, nothing is sold twice, and stock is what its movements and holds say.
        #[test]
        fn stock_adds_up_after_any_endings(
            held in prop::collection::btree_map("[A-F]", 1..4_i64, 0..6),
            endings in prop::collection::vec(("[A-H]", ending()), 0..40),
        ) {
            let reserved: i64 = held.values().sum();
            let on_hand = 12.max(reserved);
            let orders = held.iter().map(|(order, quantity)| {
                (id(order), Known { lines: Some(lines(*quantity)), ..known(Status::Held) })
            });
            let mut books = Books::open(Levels::from([(1, Level { on_hand, reserved })]), orders.collect());
            for (order, ending) in &endings {
                let once = books.settle(&id(order), ending);
                let after = books.clone();
                prop_assert_eq!(books.settle(&id(order), ending), once);
                prop_assert_eq!(&books.orders, &after.orders);
                prop_assert_eq!(&books.levels, &after.levels);

                let level = books.levels[&1];
                prop_assert!(0 <= level.reserved && level.reserved <= level.on_hand);
                let moved: i64 = books.movements.iter().map(|moved| moved.quantity).sum();
                prop_assert_eq!(level.on_hand, on_hand + moved);
                let live = books.orders.values().filter(|known| known.status == Status::Held);
                let live: i64 = live.flat_map(|known| known.lines.iter().flat_map(Lines::items)).map(|item| item.quantity).sum();
                prop_assert_eq!(level.reserved, live);
            }
        }
    }
}
