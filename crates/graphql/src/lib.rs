//! GraphQL over HTTP, done once for every service.
//!
//! `async-graphql` executes; this crate is the door in front of it. It follows the specification
//! [GraphQL over HTTP](https://graphql.github.io/graphql-over-http/draft/) to the point that all 61 server audits of
//! the npm package `graphql-http` pass, and it bounds what one request may cost before any of it is executed.
//!
//! A request goes through these steps, one file each:
//!
//! 1. `http` takes it, within [`Limits::request_timeout`], whatever happens inside.
//! 2. `request` reads it: JSON by POST, the query string by GET, nothing else (a form or multipart request would let
//!    a foreign web page act for its visitor).
//! 3. `document` looks at the query's bytes: how many tokens, how deeply nested.
//! 4. `cost` counts what the parsed document asks for, each fragment once, so that fragments that double twenty
//!    times cost microseconds.
//! 5. `validator` applies the rules of GraphQL.
//! 6. `price` says what it costs, and `throttle` charges the request's [`Payer`] for it.
//! 7. The schema executes it. [`Limits::max_complexity`] holds there.
//! 8. `completion` puts null where a field failed; the library leaves a hole there.
//! 9. `errors` gives each error its code, and hides what a client must not see.
//! 10. `response` writes it in the media type the client accepts, with the status that media type asks for.
//!
//! A document that passed steps 3 to 5 is remembered by `documents`, and the next request with the same text does not
//! go through them again.
//!
//! ```
//! use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
//! use graphql::{Id, Limits, Refusal};
//!
//! struct Query;
//!
//! #[Object]
//! impl Query {
//!     /// The name of a product.
//!     async fn name(&self, id: Id) -> async_graphql::Result<&str> {
//!         if id != Id(1) {
//!             return Err(Refusal::not_found("there is no such product").with("id", id).into());
//!         }
//!         Ok("Kettle")
//!     }
//! }
//!
//! let app: axum::Router = graphql::router(Schema::build(Query, EmptyMutation, EmptySubscription), Limits::default());
//! ```
//!
//! **What a resolver finds in its context:** `ctx.data::<http::request::Parts>()`, the request's head with its headers
//! and the extensions that layers put there (the caller, once there are accounts), and `ctx.data::<trace::Trace>()`, the
//! trace its header `traceparent` names, or a new one.
//!
//! **What a resolver answers with when it cannot:** a [`Refusal`] is the client's to read and goes out with its code.
//! Every other error (`?` on a database error, an `anyhow::Error`, a panic) is a fault: it is logged here, once, and
//! the client sees `internal error`, the code INTERNAL and the trace id.
//!
//! **Architecture Invariant:** no text that reaches a resolver contains NUL, in a variable or in a literal, so none
//! reaches PostgreSQL, which cannot store it.
//!
//! **Rules for a schema** that this crate cannot check: numbers are `i32` and ids are [`Id`] (an `i64` is published as
//! `Int`, which has 32 bits, and so lies); a field that returns a list says
//! `complexity = "page_size * (1 + child_complexity)"`, because a list of `__typename` alone would otherwise be free;
//! text is bounded with [`text`], pages with [`page`].

mod http;
mod limits;
mod request;

mod cost;
mod document;
mod documents;
mod price;
mod throttle;
mod validator;

mod completion;
mod errors;
mod refusal;
mod response;

mod id;
pub mod page;
mod playground;
mod ready;
mod text;

pub use crate::http::router;
pub use id::Id;
pub use limits::{CHANGE_COST, Limits};
pub use ready::Ready;
pub use refusal::{Code, Refusal};
pub use text::text;
pub use throttle::Payer;
