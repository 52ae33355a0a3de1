//! Listens to the SQL statements of this thread: an answer must not take more of them the more it tells.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::graphql_client::Api;
use crate::world::World;

thread_local! {
    static STATEMENTS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// sqlx tells of each statement it ran.
pub(crate) struct Statements;

impl Subscriber for Statements {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        struct Summary;

        impl Visit for Summary {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                let summary = format!("{value:?}");
                // A connection that meets a type for the first time asks what it is.
                if field.name() == "summary" && !summary.contains("pg_type") {
                    STATEMENTS.with_borrow_mut(|heard| heard.iter_mut().for_each(|heard| heard.push(summary.clone())));
                }
            }
        }

        event.record(&mut Summary);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The statements this thread runs until the future is done. The test's runtime must have one thread.
pub(crate) async fn statements<T>(work: impl Future<Output = T>) -> (Vec<String>, T) {
    // For all threads: one that none listens to would otherwise have told sqlx, for all, that nobody does.
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Statements).unwrap());
    STATEMENTS.replace(Some(Vec::new()));
    let done = work.await;
    (STATEMENTS.take().unwrap(), done)
}

#[tokio::test]
async fn a_page_reads_its_products_together() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    let mut products = Vec::new();
    for _ in 0..30 {
        products.push(world.product(1_000).await);
    }
    let lines = |n: usize| (0..3).map(|line| (products[(n * 3 + line * 7) % 30], 1)).collect();
    world.hold((0..50).map(|n| (format!("ORD-{n}"), lines(n)))).await;

    let query = "query($first: Int) { holds(first: $first) { nodes { orderId items { quantity product { sku available } } } } }";
    for first in [1, 50] {
        let (ran, page) = statements(api.ask(query, json!({ "first": first }))).await;
        assert_eq!(page["nodes"].as_array().unwrap().len(), first);
        assert!(page["nodes"][0]["items"][0]["product"]["sku"].is_string());
        assert!(is_together(&ran), "a page of {first}: {ran:?}");
    }
    let movements = "query($first: Int) { movements(first: $first) { nodes { product { sku } } } }";
    for first in [1, 30] {
        let (ran, page) = statements(api.ask(movements, json!({ "first": first }))).await;
        assert_eq!(page["nodes"].as_array().unwrap().len(), first);
        assert!(is_together(&ran), "a page of {first}: {ran:?}");
    }
}

/// One statement for the page and one for its products, however many. What is asked for while that one is under way,
/// on a machine that is busy, takes another; without the loader it would be 150, and 30 for the movements.
fn is_together(ran: &[String]) -> bool {
    (2..=15).contains(&ran.len())
}

#[tokio::test]
async fn products_are_counted_only_if_that_is_asked() {
    let world = World::new().await;
    let api = Api::serve(&world.connections).await;
    world.product(1).await;
    for (query, expected) in [
        ("{ products { nodes { sku onHand } } }", 1),
        ("{ products { totalCount nodes { sku onHand } } }", 2),
        ("{ product(id: 1) { sku onHand } }", 1),
    ] {
        let (ran, _) = statements(api.ask(query, json!({}))).await;
        assert_eq!(ran.len(), expected, "{query}: {ran:?}");
    }
}
