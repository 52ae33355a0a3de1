//! What a field asks of its caller: `#[graphql(guard = "auth::guard::admin")]`.

use async_graphql::{Context, Error, Result};
use axum::http::request::Parts;
use graphql::Refusal;

use crate::caller::{Caller, Identity, Role};
use crate::token::Refused;

/// For everybody who has signed in.
///
/// # Errors
/// UNAUTHENTICATED without a valid token.
pub fn user(ctx: &Context<'_>) -> Result<()> {
    caller(ctx).map(drop)
}

/// For the shop's own people.
///
/// # Errors
/// UNAUTHENTICATED without a valid token, FORBIDDEN for every other role.
pub fn admin(ctx: &Context<'_>) -> Result<()> {
    match caller(ctx)?.role {
        Role::Admin => Ok(()),
        Role::User => Err(Refusal::forbidden("this needs the role ADMIN").into()),
    }
}

/// Who asks.
///
/// # Errors
/// UNAUTHENTICATED without a valid token; a fault where no token can be verified.
pub fn caller(ctx: &Context<'_>) -> Result<Caller> {
    match ctx.data::<Parts>()?.extensions.get::<Identity>() {
        Some(Identity::Known(caller)) => Ok(*caller),
        Some(Identity::Refused(Refused::Unverifiable)) => {
            Err(Error::new_with_source(anyhow::anyhow!("no key is known by which a token could be verified")))
        }
        Some(Identity::Refused(refused)) => Err(Refusal::unauthenticated(refused.to_string()).into()),
        Some(Identity::Anonymous) => {
            Err(Refusal::unauthenticated("sign in first: this needs the header `authorization: Bearer <token>`").into())
        }
        None => Err(Error::new_with_source(anyhow::anyhow!("nobody has looked who asks"))),
    }
}
