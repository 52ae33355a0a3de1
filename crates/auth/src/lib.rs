//! Who is asking, and what they may do.
//!
//! ms-users signs access tokens; every service verifies them here by public keys alone, and asks nobody while it answers
//! a request. In reading order: [`caller`] is who asks, [`guard`] what they may do, [`token`] what proves it, [`keys`]
//! whose signature counts, [`signer`] who makes it, [`bearer`] how it comes out of a request. [`demo`] is for
//! development and [`local`] for tests.
//!
//! A resolver declares at the field who may ask for it:
//!
//! ```
//! use async_graphql::{Context, Object, Result};
//!
//! struct Query;
//!
//! #[Object]
//! impl Query {
//!     /// Who asks.
//!     #[graphql(guard = "auth::guard::user")]
//!     async fn me(&self, ctx: &Context<'_>) -> Result<String> {
//!         Ok(auth::guard::caller(ctx)?.user_id.to_string())
//!     }
//! }
//! ```
//!
//! **Architecture Invariant:** a service holds no secret by which a token could be made; [`signer`] is used by ms-users,
//! and by tests with keys of their own.

pub mod caller;
pub mod guard;

pub mod keys;
pub mod signer;
pub mod token;

pub mod bearer;
pub mod config;

pub mod demo;
pub mod local;

pub use caller::{Caller, Identity, Role};
pub use config::Tokens;
pub use keys::Keys;
pub use signer::SigningKey;
pub use token::{Claims, Refused, Verifier};
