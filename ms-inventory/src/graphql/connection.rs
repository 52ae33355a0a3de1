use async_graphql::Context;
use database::{Connection, Pool};

use super::error::Result;

/// A connection of the requests' pool, which is known to be alive.
///
/// Waiting for one, and opening one, is a future of several kilobytes. It is boxed, because every resolver that awaits it
/// in place has room for it, and is copied with that room at each level of a query.
pub(super) async fn connection(ctx: &Context<'_>) -> Result<Connection> {
    Ok(Box::pin(ctx.data::<Pool>()?.acquire()).await?)
}
