use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Hears the statements that this thread's database connections carry out, as sqlx logs them. A test and all it starts
/// run on one thread.
pub(crate) struct Statements;

impl Statements {
    pub(crate) fn listen() -> Self {
        static LISTENING: OnceLock<()> = OnceLock::new();
        LISTENING.get_or_init(|| {
            let statements = Targets::new().with_target("sqlx::query", tracing::Level::DEBUG);
            let subscriber = Registry::default().with(Ear.with_filter(statements));
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        HEARD.take();
        Self
    }

    /// Those since the last time. A connection that meets a type for the first time asks what it is; that is left out.
    pub(crate) fn heard(&self) -> Vec<String> {
        HEARD.take().into_iter().filter(|statement| !statement.contains("pg_catalog")).collect()
    }
}

struct Ear;

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut statement = Statement(String::new());
        event.record(&mut statement);
        HEARD.with_borrow_mut(|heard| heard.push(statement.0));
    }
}

struct Statement(String);

impl Visit for Statement {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ["summary", "db.statement"].contains(&field.name()) {
            self.0 += &format!("{value:?}");
        }
    }
}
