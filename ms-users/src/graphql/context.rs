//! What resolvers find about the request they answer.

use async_graphql::{Context, Result};
use axum::http::request::Parts;
use boot::client::ClientAddress;
use database::{Pool, Transaction};

/// The client, as it is counted. Requests whose client cannot be told are counted together.
pub(super) fn client(ctx: &Context<'_>) -> Result<String> {
    let address = ctx.data::<Parts>()?.extensions.get::<ClientAddress>();
    Ok(address.map_or_else(|| "unknown".to_owned(), |address| address.network().to_string()))
}

pub(super) async fn begin(ctx: &Context<'_>) -> Result<Transaction> {
    Ok(ctx.data::<Pool>()?.begin().await?)
}
