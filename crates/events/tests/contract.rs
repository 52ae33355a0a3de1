//! The golden files are the contract: each parses, and is written again byte for byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use events::inventory::{ProductChanged, ProductDeleted, ProductEvent, StockEvent, StockReleased, StockReserved};
use events::inventory::{ReleaseCause, Shortage, StockRejected};
use events::orders::{OrderCancelled, OrderCompleted, OrderCreated, OrderEvent, OrderRefunded};
use events::{Event, Item, MAX_BODY_BYTES, OrderId, ParseError, queues};

fn order_id() -> OrderId {
    OrderId::try_from("ORD-12345".to_owned()).unwrap()
}

const ITEM: Item = Item { product_id: 1, quantity: 2 };

fn written<E: Event>(event: &E) -> String {
    serde_json::to_string(event).unwrap() + "\n"
}

macro_rules! golden {
    ($test:ident, $file:literal, $parse:path => $variant:path, $event:expr) => {
        #[test]
        fn $test() {
            let text = include_str!(concat!("../golden/", $file, ".json"));
            let event = $event;
            assert_eq!(written(&event), text);
            assert_eq!($parse(text.as_bytes()).unwrap(), $variant(event));
        }
    };
}

golden!(order_created, "order_created", OrderEvent::parse => OrderEvent::Created, OrderCreated {
    order_id: order_id(),
    items: vec![ITEM],
});
golden!(order_completed, "order_completed", OrderEvent::parse => OrderEvent::Completed, OrderCompleted {
    order_id: order_id(),
    items: vec![ITEM],
});
golden!(order_refunded, "order_refunded", OrderEvent::parse => OrderEvent::Refunded, OrderRefunded {
    order_id: order_id(),
    reason: "broken".into(),
    restock: false,
});
golden!(order_cancelled, "order_cancelled", OrderEvent::parse => OrderEvent::Cancelled, OrderCancelled {
    order_id: order_id(),
    reason: "changed my mind".into(),
});
golden!(stock_reserved, "stock_reserved", StockEvent::parse => StockEvent::Reserved, StockReserved {
    order_id: order_id(),
    items: vec![ITEM],
    expires_at: None,
});
golden!(stock_reserved_until, "stock_reserved_until", StockEvent::parse => StockEvent::Reserved, StockReserved {
    order_id: order_id(),
    items: vec![ITEM],
    expires_at: Some("2026-11-27T00:15:00.123456Z".parse().unwrap()),
});
golden!(stock_rejected, "stock_rejected", StockEvent::parse => StockEvent::Rejected, StockRejected {
    order_id: order_id(),
    reason: "Insufficient stock".into(),
    shortages: vec![],
});
golden!(stock_rejected_short, "stock_rejected_short", StockEvent::parse => StockEvent::Rejected, StockRejected {
    order_id: order_id(),
    reason: "Insufficient stock".into(),
    shortages: vec![Shortage { product_id: 1, requested: 2, available: 1 }],
});
golden!(stock_released, "stock_released", StockEvent::parse => StockEvent::Released, StockReleased {
    order_id: order_id(),
    items: vec![ITEM],
    cause: ReleaseCause::Expired,
    written_off: vec![],
});
golden!(stock_released_written_off, "stock_released_written_off", StockEvent::parse => StockEvent::Released, StockReleased {
    order_id: order_id(),
    items: vec![ITEM],
    cause: ReleaseCause::Refunded,
    written_off: vec![ITEM],
});
golden!(product_changed, "product_changed", ProductEvent::parse => ProductEvent::Changed, ProductChanged {
    product_id: 1,
    sku: "KB-60".into(),
    name: "Keyboard 60 %".into(),
    price: "59.90".parse().unwrap(),
    version: 3,
});
golden!(product_deleted, "product_deleted", ProductEvent::parse => ProductEvent::Deleted, ProductDeleted {
    product_id: 1,
    sku: "KB-60".into(),
    name: "Keyboard 60 %".into(),
    price: "59.90".parse().unwrap(),
    version: 4,
});

fn created(body: &str) -> Result<OrderCreated, ParseError> {
    match OrderEvent::parse(body.as_bytes())? {
        OrderEvent::Created(event) => Ok(event),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let body = r#"{"event":"OrderCreated","coupon":{"a":[1]},"order_id":"A","items":[{"product_id":1,"quantity":2,"gift":true}]}"#;
    assert_eq!(created(body).unwrap().items, [ITEM]);
}

#[test]
fn absurd_quantities_are_read_so_that_they_can_be_answered() {
    for (written, read) in
        [("-5", -5), ("99999999999999999999999", i64::MAX), ("18446744073709551615", i64::MAX), ("2.0", 2)]
    {
        let body =
            format!(r#"{{"event":"OrderCreated","order_id":"A","items":[{{"product_id":1,"quantity":{written}}}]}}"#);
        assert_eq!(created(&body).unwrap().items[0].quantity, read);
    }
}

#[test]
fn what_is_no_event_says_why() {
    let deep = format!(r#"{{"event":"OrderCreated","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long_id = format!(r#"{{"event":"OrderCreated","order_id":"{}","items":[]}}"#, "é".repeat(65));
    for (body, why) in [
        ("", "EOF"),
        ("null", "invalid type: null"),
        ("{}", "missing field `event`"),
        (r#"{"event":1}"#, "invalid type: integer"),
        (r#"{"event":"Boom"}"#, "unexpected event \"Boom\""),
        (r#"{"event":"OrderCreated","items":[]}"#, "missing field `order_id`"),
        (r#"{"event":"OrderCreated","order_id":7,"items":[]}"#, "invalid type: integer"),
        (r#"{"event":"OrderCreated","order_id":"","items":[]}"#, "order_id is empty"),
        (r#"{"event":"OrderCreated","order_id":"a\u0000","items":[]}"#, "order_id contains NUL"),
        (r#"{"event":"OrderCreated","order_id":"A"}"#, "missing field `items`"),
        (r#"{"event":"OrderCreated","order_id":"A","items":{}}"#, "invalid type: map"),
        (r#"{"event":"OrderCreated","order_id":"A","items":[{"product_id":1,"quantity":1.5}]}"#, "expected an integer"),
        (r#"{"event":"OrderCreated","order_id":"A","items":[{"product_id":1,"quantity":"2"}]}"#, "expected an integer"),
        (r#"{"event":"OrderCreated","order_id":"A","order_id":"B","items":[]}"#, "duplicate field `order_id`"),
        (r#"{"event":"OrderCreated","order_id":"A","items":[]} trailing"#, "trailing characters"),
        (&long_id, "order_id has more than 64 characters"),
        (&deep, "missing field `order_id`"),
    ] {
        let error = OrderEvent::parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{body:.80}: {error}");
    }
    let not_utf8 = OrderEvent::parse(b"{\"event\":\"OrderCreated\",\"order_id\":\"\xff\",\"items\":[]}").unwrap_err();
    assert!(not_utf8.to_string().contains("unicode"), "{not_utf8}");
    let huge = OrderEvent::parse(&vec![b' '; MAX_BODY_BYTES + 1]).unwrap_err();
    assert!(matches!(huge, ParseError::TooLarge(_)));
}

#[test]
fn a_body_of_exactly_the_largest_size_is_read() {
    let mut body = br#"{"event":"OrderCreated","order_id":"A","items":[]}"#.to_vec();
    body.resize(MAX_BODY_BYTES, b' ');
    assert!(OrderEvent::parse(&body).is_ok());
}

#[test]
fn fields_that_may_be_missing_have_their_documented_meaning() {
    let order_id = order_id();
    for (body, event) in [
        (
            r#"{"event":"OrderRefunded","order_id":"ORD-12345"}"#,
            OrderEvent::Refunded(OrderRefunded { order_id: order_id.clone(), reason: String::new(), restock: true }),
        ),
        (
            r#"{"event":"OrderCancelled","order_id":"ORD-12345"}"#,
            OrderEvent::Cancelled(OrderCancelled { order_id: order_id.clone(), reason: String::new() }),
        ),
        (
            r#"{"event":"OrderCompleted","order_id":"ORD-12345"}"#,
            OrderEvent::Completed(OrderCompleted { order_id, items: vec![] }),
        ),
    ] {
        assert_eq!(OrderEvent::parse(body.as_bytes()).unwrap(), event);
    }
}

/// A dead letter names the event that came to the wrong queue.
#[test]
fn an_event_is_named_by_its_tag() {
    for name in ["OrderCreated", "OrderCompleted", "OrderCancelled", "OrderRefunded"] {
        let body = format!(r#"{{"event":"{name}","order_id":"A","items":[]}}"#);
        assert_eq!(OrderEvent::parse(body.as_bytes()).unwrap().name(), name);
    }
}

/// They are names in the broker, which outlive every version of the services.
#[test]
fn queues_and_exchanges_of_dead_letters_are_named_after_their_queue() {
    assert_eq!(queues::dead(queues::ORDER_CREATED), "order.created.inventory.dead");
    assert_eq!(queues::replay(queues::ORDER_CREATED), "order.created.inventory.replay");
    assert_eq!(queues::retry(queues::ORDER_CREATED), "order.created.inventory.retry");
}

#[test]
fn an_order_id_is_given_back_as_it_came() {
    let id = order_id();
    assert_eq!((id.as_str(), id.to_string().as_str()), ("ORD-12345", "ORD-12345"));
    assert_eq!(id.into_string(), "ORD-12345");
}

#[test]
fn an_order_id_has_up_to_64_characters_of_any_script() {
    assert!(OrderId::try_from("😀".repeat(64)).is_ok());
    assert!(OrderId::try_from("😀".repeat(65)).is_err());
}

#[test]
fn a_price_is_written_with_two_decimals() {
    let (sku, name) = ("KB-60".to_owned(), "Keyboard 60 %".to_owned());
    let free = ProductChanged { product_id: 1, sku, name, price: "0".parse().unwrap(), version: 1 };
    assert!(written(&free).contains(r#""price":"0.00""#), "{}", written(&free));
}
