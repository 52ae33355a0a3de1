//! GraphQL over HTTP, at the doors of both services, behind which there is no database: a resolver that needs it answers
//! with INTERNAL.
//!
//! Each request is sent twice. The second time its document may be remembered, and its data must be the same. Its errors
//! may come in another order, because the library walks hash maps.

use std::sync::LazyLock;

use async_graphql::{ObjectType, SchemaBuilder, SubscriptionType};
use auth::{Caller, Identity, Role};
use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use graphql::Limits;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;
use trace::Trace;
use uuid::Uuid;

/// All that `extensions.code` may be.
const CODES: [&str; 8] =
    ["INVALID", "NOT_FOUND", "CONFLICT", "UNAUTHENTICATED", "FORBIDDEN", "RATE_LIMITED", "TOO_COMPLEX", "INTERNAL"];

/// So that an answer that names its trace names the same one twice.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static INVENTORY: LazyLock<Door> = LazyLock::new(|| Door::of(ms_inventory::graphql::schema()));
static ORDERS: LazyLock<Door> = LazyLock::new(|| Door::of(ms_orders::graphql::schema()));

/// The body of a POST to ms-inventory.
///
/// # Panics
/// See [`self`].
pub fn inventory_body(body: &[u8]) {
    INVENTORY.post(body);
}

/// The body of a POST to ms-orders.
///
/// # Panics
/// See [`self`].
pub fn orders_body(body: &[u8]) {
    ORDERS.post(body);
}

/// A document to ms-inventory.
///
/// # Panics
/// See [`self`].
pub fn inventory_document(document: &[u8]) {
    INVENTORY.post_document(document);
}

/// A document to ms-orders.
///
/// # Panics
/// See [`self`].
pub fn orders_document(document: &[u8]) {
    ORDERS.post_document(document);
}

/// The query string of a GET to ms-orders.
///
/// # Panics
/// See [`self`].
pub fn query_string(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    // What the HTTP server would not let through cannot be built.
    ORDERS.ask(|| Request::get(format!("/graphql?{text}")).header(Trace::HEADER, TRACE).body(Body::empty()).ok());
}

/// The headers of a POST to ms-orders that the door reads, one a line: `accept`, `content-type`, `content-length`,
/// `content-encoding`, `traceparent`.
///
/// # Panics
/// See [`self`].
pub fn headers(lines: &[u8]) {
    const NAMES: [&str; 5] = ["accept", "content-type", "content-length", "content-encoding", "traceparent"];
    let lines = || NAMES.into_iter().zip(lines.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.is_empty());
    ORDERS.ask(|| {
        let body = Body::from(r#"{"query":"{__typename}"}"#);
        lines().fold(Request::post("/graphql"), |request, (name, line)| request.header(name, line)).body(body).ok()
    });
}

struct Door {
    router: Router,
    runtime: Runtime,
}

impl Door {
    fn of<Q, M, S>(schema: SchemaBuilder<Q, M, S>) -> Self
    where
        Q: ObjectType + 'static,
        M: ObjectType + 'static,
        S: SubscriptionType + 'static,
    {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        // An ADMIN, who gets further than anybody else.
        let caller = Caller { user_id: Uuid::nil(), role: Role::Admin };
        let router = graphql::router(schema, Limits::default()).layer(Extension(Identity::Known(caller)));
        Self { router, runtime }
    }

    fn post_document(&self, document: &[u8]) {
        let Ok(document) = str::from_utf8(document) else { return };
        self.post(json!({ "query": document }).to_string().as_bytes());
    }

    fn post(&self, body: &[u8]) {
        let body = Bytes::copy_from_slice(body);
        self.ask(|| {
            let request = Request::post("/graphql").header(header::CONTENT_TYPE, "application/json");
            request.header(Trace::HEADER, TRACE).body(Body::from(body.clone())).ok()
        });
    }

    fn ask(&self, request: impl Fn() -> Option<Request<Body>>) {
        let (Some(first), Some(second)) = (request(), request()) else { return };
        assert_eq!(self.data(first), self.data(second), "the second answer is another one");
    }

    /// What an answer says beside its errors; `None` where there are only those.
    fn data(&self, request: Request<Body>) -> (StatusCode, Option<Value>) {
        let (status, body) = self.answer(request);
        assert!(!status.is_server_error(), "{status}");
        let mut answer: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        check(&answer);
        (status, answer.get_mut("data").map(Value::take))
    }

    fn answer(&self, request: Request<Body>) -> (StatusCode, Bytes) {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("a router answers");
            let (head, body) = response.into_parts();
            (head.status, body.collect().await.expect("the body is in memory").to_bytes())
        })
    }
}

/// An answer has data or errors, and each error has a code.
fn check(answer: &Value) {
    let errors = answer["errors"].as_array();
    assert!(answer.get("data").is_some() || errors.is_some_and(|errors| !errors.is_empty()), "{answer}");
    for error in errors.into_iter().flatten() {
        assert!(error["extensions"]["code"].as_str().is_some_and(|code| CODES.contains(&code)), "{error}");
    }
}
