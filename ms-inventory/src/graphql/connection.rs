use async_graphql::Context;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use super::error::Result;

/// A connection of the requests' pool, at once where one is idle.
///
/// Waiting for one, and opening one, is a future of several kilobytes. It is boxed for when it is needed, because every
/// resolver that awaits it in place has room for it, and is copied with that room at each level of a query.
pub(super) async fn connection(ctx: &Context<'_>) -> Result<PoolConnection<Postgres>> {
    let pool = ctx.data::<PgPool>()?;
    match pool.try_acquire() {
        Some(idle) => Ok(idle),
        None => Ok(Box::pin(pool.acquire()).await?),
    }
}
