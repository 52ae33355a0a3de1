//! Relay pages over a keyset: a cursor is a row's place in an order, so a page costs the same however far in it is,
//! and rows that come or go do not shift the next one.
//!
//! ```
//! use async_graphql::connection::Connection;
//! use graphql::{Refusal, page::{Cursor, Page, PageSize}};
//!
//! # fn query(limit: i64, after: Option<i64>, before: Option<i64>, backward: bool) -> Vec<i64> { vec![1, 2, 3] }
//! fn numbers(
//!     first: Option<i32>, after: Option<String>, last: Option<i32>, before: Option<String>,
//! ) -> Result<Connection<Cursor<i64>, i64>, Refusal> {
//!     let page = Page::<i64>::parse(first, after, last, before, PageSize::default())?;
//!     // select n from numbers where n > $after and n < $before order by n (desc if backward) limit $fetch
//!     let rows = query(page.fetch(), page.after, page.before, page.backward);
//!     Ok(page.connection(rows, |row| *row, |row| row))
//! }
//! ```

use async_graphql::{
    ObjectType, OutputType,
    connection::{Connection, CursorType, Edge, EmptyFields, OpaqueCursor},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Refusal;

/// A row's place in an order: URL-safe base 64 of JSON. Clients hand it back and look no further.
pub type Cursor<K> = OpaqueCursor<K>;

/// How many rows a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// Where the client does not say. Default 20.
    pub default: usize,
    /// What the client may say at most. Default 100.
    pub max: usize,
}

impl Default for PageSize {
    fn default() -> Self {
        Self { default: 20, max: 100 }
    }
}

/// What a list costs before its first row: a search that finds nothing is work, too.
const LIST_COST: usize = 100;

impl PageSize {
    /// What a list that is asked for with `first` and `last` costs, for its field's `complexity`.
    pub fn cost(self, first: Option<i32>, last: Option<i32>, child_complexity: usize) -> usize {
        LIST_COST + self.of(first, last).max(1) * (1 + child_complexity)
    }

    /// What would be refused counts as the most there can be.
    fn of(self, first: Option<i32>, last: Option<i32>) -> usize {
        first.or(last).map_or(self.default, |size| usize::try_from(size).map_or(self.max, |size| size.min(self.max)))
    }
}

/// The page a client asks for, of rows that are ordered by the key `K`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// Rows it has at most.
    pub limit: usize,
    /// Only rows that come after this key.
    pub after: Option<K>,
    /// Only rows that come before this key.
    pub before: Option<K>,
    /// Whether it is the last of those rows that are wanted: fetch them in the opposite order.
    pub backward: bool,
}

impl<K: Serialize + DeserializeOwned + Send + Sync> Page<K> {
    /// Reads Relay's four arguments.
    ///
    /// # Errors
    ///
    /// INVALID where `first` and `last` come together, where one is negative or beyond the size's maximum, and where a
    /// cursor was not made here.
    pub fn parse(
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        size: PageSize,
    ) -> Result<Self, Refusal> {
        let limit = match (first, last) {
            (Some(_), Some(_)) => return Err(Refusal::invalid("first and last cannot be used together")),
            (Some(first), None) => limit("first", first, size.max)?,
            (None, Some(last)) => limit("last", last, size.max)?,
            (None, None) => size.default,
        };
        Ok(Self {
            limit,
            after: after.map(|cursor| key("after", &cursor)).transpose()?,
            before: before.map(|cursor| key("before", &cursor)).transpose()?,
            backward: last.is_some(),
        })
    }

    /// How many rows to fetch: one more than the page has, to see whether there are more. For SQL's `limit`.
    pub fn fetch(&self) -> i64 {
        self.limit as i64 + 1
    }

    /// Makes the connection of the fetched rows, which come in the order they were fetched in.
    pub fn connection<Row, Node: OutputType>(
        self,
        rows: Vec<Row>,
        key: impl Fn(&Row) -> K,
        node: impl FnMut(Row) -> Node,
    ) -> Connection<Cursor<K>, Node> {
        self.connection_with(rows, key, node, EmptyFields)
    }

    /// The same, with fields beside `edges`, such as `totalCount`.
    pub fn connection_with<Row, Node: OutputType, Fields: ObjectType>(
        self,
        mut rows: Vec<Row>,
        key: impl Fn(&Row) -> K,
        mut node: impl FnMut(Row) -> Node,
        fields: Fields,
    ) -> Connection<Cursor<K>, Node, Fields> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        // On the side it comes from there is at least the row of the cursor, unless that was deleted meanwhile.
        let (has_previous, has_next) = if self.backward {
            rows.reverse();
            (more, self.before.is_some())
        } else {
            (self.after.is_some(), more)
        };
        let mut connection = Connection::with_additional_fields(has_previous, has_next, fields);
        connection.edges = rows.into_iter().map(|row| Edge::new(OpaqueCursor(key(&row)), node(row))).collect();
        connection
    }
}

fn limit(name: &'static str, size: i32, max: usize) -> Result<usize, Refusal> {
    usize::try_from(size).ok().filter(|size| *size <= max).ok_or_else(|| {
        Refusal::invalid(format!("{name} must be between 0 and {max}")).with("field", name).with("max", max as u64)
    })
}

fn key<K: Serialize + DeserializeOwned>(name: &'static str, cursor: &str) -> Result<K, Refusal> {
    // The reason of the failure is about base 64 and JSON, and would invite to look inside.
    OpaqueCursor::decode_cursor(cursor)
        .map(|cursor| cursor.0)
        .map_err(|_| Refusal::invalid(format!("{name} is not a cursor of this list")).with("field", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: Option<i32>, last: Option<i32>, after: Option<&str>) -> Result<Page<(String, i64)>, String> {
        Page::parse(first, after.map(Into::into), last, None, PageSize::default())
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_size_out_of_range_is_refused() {
        for size in [-1, i32::MIN, 101, i32::MAX] {
            assert_eq!(page(Some(size), None, None).unwrap_err(), "first must be between 0 and 100");
            assert_eq!(page(None, Some(size), None).unwrap_err(), "last must be between 0 and 100");
        }
        assert_eq!(page(Some(1), Some(1), None).unwrap_err(), "first and last cannot be used together");
        assert_eq!(page(Some(0), None, None).unwrap().limit, 0);
        assert_eq!(page(None, None, None).unwrap().limit, 20);
    }

    #[test]
    fn a_cursor_comes_back_as_the_key_it_was_made_of() {
        let key = ("Kettle \"žluťoučký\"".to_owned(), i64::MAX);
        let cursor = OpaqueCursor(key.clone()).encode_cursor();
        assert!(cursor.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char)));
        assert_eq!(page(None, None, Some(&cursor)).unwrap().after, Some(key));
    }

    #[test]
    fn a_cursor_from_elsewhere_is_refused() {
        let other_key = OpaqueCursor(7).encode_cursor();
        for cursor in ["", "!", "MQ==", "bm90IGpzb24", &other_key] {
            assert_eq!(page(None, None, Some(cursor)).unwrap_err(), "after is not a cursor of this list", "{cursor}");
        }
    }

    #[test]
    fn complexity_takes_what_will_be_refused_for_the_most() {
        let size = PageSize::default();
        for (first, last, expected) in
            [(None, None, 20), (Some(5), None, 5), (None, Some(7), 7), (Some(-1), None, 100), (Some(5_000), None, 100)]
        {
            assert_eq!(size.of(first, last), expected, "{first:?} {last:?}");
        }
    }
}
