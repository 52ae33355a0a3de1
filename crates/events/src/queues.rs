//! Who listens to what. Each queue `Q` has a dead-letter queue `Q.dead`, a queue `Q.retry`, and an exchange `Q.replay` for the
//! way back from both.

/// ms-inventory reads new orders here.
pub const ORDER_CREATED: &str = "order.created.inventory";
/// ms-inventory reads how orders ended here.
pub const ORDER_SETTLED: &str = "order.settled.inventory";
/// ms-orders reads the answers to its orders here.
pub const STOCK_OUTCOMES: &str = "stock.outcomes.orders";
/// ms-orders keeps its copy of the catalogue from here.
pub const PRODUCT_CHANGES: &str = "product.changes.orders";

/// The exchange (direct) through which dead letters reach `Q.dead`, with the queue's name `Q` as the routing key.
/// Bind a queue of your own to it to be told of them.
pub const DEAD_LETTERS: &str = "dead-letters";

/// The dead-letter queue of a queue.
pub fn dead(queue: &str) -> String {
    format!("{queue}.dead")
}

/// The retry queue of a queue: messages that need a locked row wait there until the broker returns them. It is bound to
/// [`DEAD_LETTERS`], with its own name as the routing key.
pub fn retry(queue: &str) -> String {
    format!("{queue}.retry")
}

/// The exchange (fanout) that leads to a queue and nowhere else: what is replayed or retried takes it. Through the default
/// exchange, which has no name, whoever may publish to one queue may publish to all of them.
pub fn replay(queue: &str) -> String {
    format!("{queue}.replay")
}
