use bytes::Bytes;

use crate::load::PRODUCTS;

/// What the playground shows first, so what a client starts from.
const MUTATION: &str =
    "mutation CreateOrder($input: CreateOrderInput!) { createOrder(input: $input) { id status total } }";

/// A request for order `number` of two lines, by which it can be found again.
pub(super) fn body(run: &str, number: u64) -> Bytes {
    let (first, second) = products(number);
    format!(
        r#"{{"query":"{MUTATION}","variables":{{"input":{{"items":[{{"productId":"{first}","quantity":1}},{{"productId":"{second}","quantity":1}}],"paymentReference":"{run}-{number}"}}}}}}"#
    )
    .into()
}

/// Any two of the products, and all of them equally often.
fn products(number: u64) -> (u64, u64) {
    let products = PRODUCTS as u64;
    let (first, apart) = (number % products, 1 + number / products % (products - 1));
    (first + 1, (first + apart) % products + 1)
}

/// Whether an answer is an order.
pub(super) fn check(answer: &str) -> Result<(), String> {
    let is_order = answer.contains(r#""id":"ORD-"#) && answer.contains(r#""status":"PENDING""#);
    if is_order { Ok(()) } else { Err("this is no order".into()) }
}
