//! Bodies of messages: what is read is written so that it is read again as the same, and written again as the same.

use events::inventory::{ProductEvent, StockEvent};
use events::orders::OrderEvent;
use serde::Serialize;

/// A body on the exchange `orders`.
///
/// # Panics
/// Where what is read does not come back from what is written of it.
pub fn order(body: &[u8]) {
    let Ok(event) = OrderEvent::parse(body) else { return };
    let written = match &event {
        OrderEvent::Created(event) => write(event),
        OrderEvent::Completed(event) => write(event),
        OrderEvent::Cancelled(event) => write(event),
        OrderEvent::Refunded(event) => write(event),
    };
    assert_eq!(OrderEvent::parse(&written).ok(), Some(event));
}

/// A body on the exchange `inventory` that is about an order.
///
/// # Panics
/// Where what is read does not come back from what is written of it.
pub fn stock(body: &[u8]) {
    let Ok(event) = StockEvent::parse(body) else { return };
    let written = match &event {
        StockEvent::Reserved(event) => write(event),
        StockEvent::Rejected(event) => write(event),
        StockEvent::Released(event) => write(event),
    };
    assert_eq!(StockEvent::parse(&written).ok(), Some(event));
}

/// A body on the exchange `inventory` that is about a product.
///
/// # Panics
/// Where what is written is not read, or is written otherwise the second time. The first time, a price is rounded to two
/// decimals.
pub fn product(body: &[u8]) {
    let Ok(event) = ProductEvent::parse(body) else { return };
    let written = write_product(&event);
    let read = ProductEvent::parse(&written).expect("what we write can be read");
    assert_eq!(write_product(&read), written);
}

fn write_product(event: &ProductEvent) -> Vec<u8> {
    match event {
        ProductEvent::Changed(event) => write(event),
        ProductEvent::Deleted(event) => write(event),
    }
}

fn write(event: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(event).expect("an event can be written")
}
