use async_graphql::connection::{CursorType, OpaqueCursor};
use bytes::Bytes;
use ms_inventory::product::Place;

/// Products of the catalogue, whose ids are 1 and on.
pub(super) const PRODUCTS: i64 = 100_000;

/// Products of a page.
pub(super) const PAGE: i64 = 20;

const QUERY: &str = "query Page($first: Int, $after: String) { products(first: $first, after: $after) \
                     { nodes { name price available } pageInfo { hasNextPage endCursor } } }";

/// Pages all over the catalogue, each after the last product of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages;

impl Pages {
    /// The request for a page.
    pub(super) fn body(self, number: u64) -> Bytes {
        let after = cursor(last_before(number));
        format!(r#"{{"query":"{QUERY}","variables":{{"first":{PAGE},"after":"{after}"}}}}"#).into()
    }

    /// Whether it holds the products that come next, with their prices and stock, and where it ends.
    pub(super) fn check(self, number: u64, answer: &str) -> Result<(), String> {
        let before = last_before(number);
        let (first, last) = (before + 1, before + PAGE);
        for id in [first, last] {
            let (price, available) = (format!("{}.{:02}", id % 10_000 / 100, id % 100), id % 1_000);
            let product = format!(r#"{{"name":"Product {id}","price":"{price}","available":{available}}}"#);
            if !answer.contains(&product) {
                return Err(format!("{product} is missing"));
            }
        }
        if answer.matches("\"name\"").count() != PAGE as usize {
            return Err(format!("not {PAGE} products"));
        }
        let end = format!(r#""pageInfo":{{"hasNextPage":true,"endCursor":"{}"}}"#, cursor(last));
        if answer.contains(&end) { Ok(()) } else { Err(format!("{end} is missing")) }
    }
}

/// The last product of the page before: a multiplicative hash leads all over the catalogue.
fn last_before(number: u64) -> i64 {
    let pages = PRODUCTS / PAGE - 1;
    let page = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    PAGE * (1 + page as i64 % (pages - 1))
}

fn cursor(id: i64) -> String {
    OpaqueCursor(Place::Id(id, id)).encode_cursor()
}
