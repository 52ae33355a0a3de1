//! What an order costs. Pure; `quote` and `createOrder` share it, so that what is shown is what is charged.

use std::collections::{BTreeMap, HashMap};

use events::{Item, MAX_LINES, MAX_QUANTITY};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::catalogue::Product;

/// The largest amount the database keeps: `numeric(12, 2)`.
pub const MAX_AMOUNT: Decimal = Decimal::from_parts(3_567_587_327, 232, 0, false, 2);

/// Decimal places of an amount.
const CENTS: u32 = 2;

/// What somebody wants: at least one product, each once, each in a quantity that can be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basket(BTreeMap<i64, i64>);

/// Why items make no basket, or have no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing in it.
    #[error("an order needs at least one item")]
    Empty,
    /// More than [`MAX_LINES`].
    #[error("an order has at most {MAX_LINES} items")]
    TooManyLines,
    /// A quantity that cannot be ordered.
    #[error("the quantity of product {product_id} must be between 1 and {MAX_QUANTITY}, all its items together")]
    Quantity {
        /// Of which product.
        product_id: i64,
    },
    /// Products the shop does not sell.
    #[error("there are no such products: {}", list(.0))]
    UnknownProducts(Vec<i64>),
    /// It adds up to more than [`MAX_AMOUNT`].
    #[error("the total is larger than {MAX_AMOUNT}")]
    TooExpensive,
}

impl Basket {
    /// Sums items of the same product.
    ///
    /// # Errors
    /// [`Refused`] by its number of lines or by a quantity.
    pub fn of(items: impl ExactSizeIterator<Item = Item>) -> Result<Self, Refused> {
        match items.len() {
            0 => return Err(Refused::Empty),
            1..=MAX_LINES => (),
            _ => return Err(Refused::TooManyLines),
        }
        let mut lines = BTreeMap::new();
        for Item { product_id, quantity } in items {
            let sum = lines.entry(product_id).or_insert(0);
            // Each is bounded before it is added, so the sum cannot overflow.
            if !(1..=MAX_QUANTITY).contains(&quantity) || *sum + quantity > MAX_QUANTITY {
                return Err(Refused::Quantity { product_id });
            }
            *sum += quantity;
        }
        Ok(Self(lines))
    }

    /// The products, in the order of their ids.
    pub fn product_ids(&self) -> Vec<i64> {
        self.0.keys().copied().collect()
    }

    /// One item a product, in the order of their ids.
    pub fn items(&self) -> Vec<Item> {
        self.0.iter().map(|(&product_id, &quantity)| Item { product_id, quantity }).collect()
    }

    /// What all its quantities add up to.
    pub fn units(&self) -> i64 {
        self.0.values().sum()
    }
}

/// A basket with prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// One line a product, in the order of their ids.
    pub lines: Vec<Line>,
    /// What the lines add up to.
    pub subtotal: Decimal,
    /// The fee on the subtotal, to the cent.
    pub fee: Decimal,
    /// Both together.
    pub total: Decimal,
}

/// So many of a product, as it is sold now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The product with its price.
    pub product: Product,
    /// How many.
    pub quantity: i64,
}

impl Line {
    /// What they cost together. Exact: a price of 12 digits times 7 digits is far from overflowing.
    pub fn total(&self) -> Decimal {
        self.product.price * Decimal::from(self.quantity)
    }
}

/// What a basket costs when `sold` is what the shop sells, by its ids, and the fee is so many per cent. Half a cent is rounded
/// to the even cent, so that roundings do not add up in anybody's favour.
///
/// # Errors
/// [`Refused`] when a product is not among them, or the total is too large.
pub fn quote(basket: &Basket, sold: &HashMap<i64, Product>, fee_percent: Decimal) -> Result<Quote, Refused> {
    let mut lines = Vec::with_capacity(basket.0.len());
    let mut unknown = Vec::new();
    for (product_id, &quantity) in &basket.0 {
        match sold.get(product_id) {
            Some(product) => lines.push(Line { product: product.clone(), quantity }),
            None => unknown.push(*product_id),
        }
    }
    if !unknown.is_empty() {
        return Err(Refused::UnknownProducts(unknown));
    }
    let subtotal: Decimal = lines.iter().map(Line::total).sum();
    if subtotal > MAX_AMOUNT {
        return Err(Refused::TooExpensive);
    }
    let exact_fee = subtotal * fee_percent / Decimal::ONE_HUNDRED;
    let mut fee = exact_fee.round_dp_with_strategy(CENTS, RoundingStrategy::MidpointNearestEven);
    fee.rescale(CENTS);
    let total = subtotal + fee;
    if total > MAX_AMOUNT {
        return Err(Refused::TooExpensive);
    }
    Ok(Quote { lines, subtotal, fee, total })
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sold(products: impl IntoIterator<Item = Product>) -> HashMap<i64, Product> {
        products.into_iter().map(|product| (product.product_id, product)).collect()
    }

    fn product(product_id: i64, price: &str) -> Product {
        Product { product_id, sku: format!("SKU-{product_id}"), name: "Kettle".into(), price: dec(price), version: 1 }
    }

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn basket(items: &[(i64, i64)]) -> Result<Basket, Refused> {
        Basket::of(items.iter().map(|&(product_id, quantity)| Item { product_id, quantity }))
    }

    #[test]
    fn the_largest_amount_is_that_of_the_database() {
        assert_eq!(MAX_AMOUNT, dec("9999999999.99"));
    }

    #[test]
    fn the_same_product_is_summed() {
        let basket = basket(&[(2, 1), (7, 5), (2, 3)]).unwrap();
        assert_eq!(basket.items(), [Item { product_id: 2, quantity: 4 }, Item { product_id: 7, quantity: 5 }]);
        assert_eq!(basket.product_ids(), [2, 7]);
        assert_eq!(basket.units(), 9);
    }

    #[test]
    fn what_cannot_be_ordered_is_refused() {
        let quantity = Refused::Quantity { product_id: 1 };
        assert_eq!(basket(&[]), Err(Refused::Empty));
        assert_eq!(basket(&vec![(1, 1); MAX_LINES + 1]), Err(Refused::TooManyLines));
        assert_eq!(basket(&[(1, 0)]), Err(quantity.clone()));
        assert_eq!(basket(&[(1, -1)]), Err(quantity.clone()));
        assert_eq!(basket(&[(1, i64::MAX)]), Err(quantity.clone()));
        assert_eq!(basket(&[(1, MAX_QUANTITY), (1, 1)]), Err(quantity));
        assert!(basket(&[(1, MAX_QUANTITY)]).is_ok());
    }

    #[test]
    fn the_fee_is_rounded_half_to_even() {
        for (price, percent, fee) in [
            ("10.00", "20", "2.00"),
            ("0.01", "20", "0.00"),
            ("0.25", "10", "0.02"),
            ("0.35", "10", "0.04"),
            ("0.45", "10", "0.04"),
            ("59.90", "7.25", "4.34"),
            ("59.90", "0", "0"),
        ] {
            let quote = quote(&basket(&[(1, 1)]).unwrap(), &sold([product(1, price)]), dec(percent)).unwrap();
            assert_eq!(quote.fee, dec(fee), "{percent} % of {price}");
            assert_eq!(quote.total, dec(price) + dec(fee));
        }
    }

    #[test]
    fn all_unknown_products_are_named() {
        let wanted = basket(&[(1, 1), (7, 1), (9, 1)]).unwrap();
        let refused = quote(&wanted, &sold([product(1, "1")]), dec("20")).unwrap_err();
        assert_eq!(refused, Refused::UnknownProducts(vec![7, 9]));
        assert_eq!(refused.to_string(), "there are no such products: 7, 9");
    }

    #[test]
    fn a_total_beyond_the_database_is_refused_and_not_a_fault() {
        let dear = "9999999999.99";
        let cost = |quantity, percent| {
            quote(&basket(&[(1, quantity)]).unwrap(), &sold([product(1, dear)]), dec(percent)).map(|quote| quote.total)
        };
        assert_eq!(cost(1, "0"), Ok(dec(dear)));
        assert_eq!(cost(1, "0.01"), Err(Refused::TooExpensive));
        assert_eq!(cost(MAX_QUANTITY, "20"), Err(Refused::TooExpensive));
        let dearest = sold((0..MAX_LINES as i64).map(|id| product(id, dear)));
        let all: Vec<_> = dearest.keys().map(|&id| (id, MAX_QUANTITY)).collect();
        assert_eq!(quote(&basket(&all).unwrap(), &dearest, dec("100")), Err(Refused::TooExpensive));
    }

    proptest! {
        #[test]
        fn a_quote_adds_up_in_whole_cents(
            lines in prop::collection::btree_map(1..50_i64, (0..1_000_000_i64, 1..100_i64), 1..20),
            per_mille in 0..1_000_i64,
        ) {
            let products = lines.iter().map(|(&id, &(cents, _))| Product { price: Decimal::new(cents, 2), ..product(id, "0") });
            let items: Vec<_> = lines.iter().map(|(&id, &(_, quantity))| (id, quantity)).collect();
            let quote = quote(&basket(&items).unwrap(), &sold(products), Decimal::new(per_mille, 1)).unwrap();
            let cents: i64 = lines.values().map(|(cents, quantity)| cents * quantity).sum();
            prop_assert_eq!(quote.subtotal, Decimal::new(cents, 2));
            prop_assert_eq!(quote.total, quote.subtotal + quote.fee);
            prop_assert!(quote.fee.scale() <= 2);
            let exact = Decimal::new(cents * per_mille, 5);
            prop_assert!((quote.fee - exact).abs() <= Decimal::new(5, 3));
        }
    }
}
