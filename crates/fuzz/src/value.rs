//! Values as strangers write them: ids, cursors, prices, headers.

use std::fmt::Debug;

use async_graphql::connection::{CursorType, OpaqueCursor};
use async_graphql::{InputType, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use events::OrderId;
use graphql::Id;
use graphql::page::{Page, PageSize};
use ms_inventory::product::Place;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use trace::Trace;

use crate::request;

/// An order's id in an event, in a cursor or in a request.
///
/// # Panics
/// Where one is taken that is too long, empty, or cannot be stored.
pub fn order_id(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Ok(id) = OrderId::try_from(text.to_owned()) {
        assert!((1..=OrderId::MAX_CHARS).contains(&text.chars().count()) && !text.contains('\0'));
        let written = serde_json::to_string(&id).expect("an id can be written");
        assert_eq!(serde_json::from_str::<OrderId>(&written).ok(), Some(id));
    }
}

/// The header `traceparent`, of a message or of a request.
///
/// # Panics
/// Where the trace that was read is not the one that is handed on.
pub fn trace(header: &[u8]) {
    let Some(trace) = str::from_utf8(header).ok().and_then(Trace::parse) else { return };
    assert_ne!(trace.to_string(), "0".repeat(32));
    assert_eq!(Trace::parse(&trace.traceparent()), Some(trace));
}

/// A cursor of any list, as text, and as the JSON that is inside of one.
///
/// # Panics
/// Where the place that was read is another one when it is written and read again.
pub fn cursor(input: &[u8]) {
    let json = URL_SAFE_NO_PAD.encode(input);
    for cursor in [str::from_utf8(input).unwrap_or_default(), &json] {
        cursor_of::<Place>(cursor);
        cursor_of::<(DateTime<Utc>, String)>(cursor);
        cursor_of::<i64>(cursor);
        cursor_of::<OrderId>(cursor);
    }
}

fn cursor_of<K: Serialize + DeserializeOwned + Send + Sync + Clone + PartialEq + Debug>(cursor: &str) {
    let place = |cursor: &str| {
        let page = Page::<K>::parse(None, Some(cursor.to_owned()), None, None, PageSize::default());
        page.ok().and_then(|page| page.after)
    };
    if let Some(read) = place(cursor) {
        let written = OpaqueCursor(read.clone()).encode_cursor();
        assert_eq!(place(&written), Some(read));
    }
}

/// A product's id, as text and as any other value.
///
/// # Panics
/// Where the id that was read is another one when it is written and read again.
pub fn id(input: &[u8]) {
    let text = str::from_utf8(input).map(|text| Value::String(text.to_owned()));
    for value in [text.ok(), serde_json::from_slice(input).ok()].into_iter().flatten() {
        if let Ok(id) = Id::parse(Some(value)) {
            assert_eq!(Id::parse(Some(id.to_value())).ok(), Some(id));
        }
    }
}

/// The price of a new product, as text and as any other value.
///
/// # Panics
/// See [`request`].
pub fn price(input: &[u8]) {
    const QUERY: &str = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
    let text = str::from_utf8(input).map(|text| serde_json::Value::String(text.to_owned()));
    for price in [text.ok(), serde_json::from_slice(input).ok()].into_iter().flatten() {
        let input = json!({ "sku": "A", "name": "A", "price": price });
        let body = json!({ "query": QUERY, "variables": { "input": input } });
        request::inventory_body(&serde_json::to_vec(&body).expect("a value can be written"));
    }
}
