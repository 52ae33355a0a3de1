//! What can be asked.

use ::graphql::page::{Cursor, Page, PageSize};
use ::graphql::text;
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result};
use database::Pool;
use uuid::Uuid;

use super::account::{AccountChange, User};
use crate::account;

/// The longest search, in characters.
const MAX_SEARCH_CHARS: usize = 254;

/// The root of queries.
#[derive(Debug)]
pub struct Query;

/// What can be asked about accounts.
#[Object]
impl Query {
    /// The account of whoever asks.
    #[graphql(guard = "auth::guard::user")]
    async fn me(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        Ok(account::find(&mut conn, auth::guard::caller(ctx)?.user_id).await?.map(User))
    }

    /// An account by its id; null where there is none. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin")]
    async fn user(&self, ctx: &Context<'_>, #[graphql(desc = "The account's id.")] id: ID) -> Result<Option<User>> {
        let Ok(id) = Uuid::try_parse(&id) else { return Ok(None) };
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        Ok(account::find(&mut conn, id).await?.map(User))
    }

    /// The accounts, the newest first, page by page. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "PageSize::default().cost(first, None, child_complexity)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Part of the e-mail address, in upper or lower case.")] search: Option<String>,
        #[graphql(desc = "So many, at most 100. 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor.")] after: Option<String>,
    ) -> Result<Connection<Cursor<Uuid>, User>> {
        if let Some(search) = &search {
            text("search", search, MAX_SEARCH_CHARS)?;
        }
        let page = Page::<Uuid>::parse(first, after, None, None, PageSize::default())?;
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let accounts = account::page(&mut conn, search.as_deref(), page.after, page.fetch()).await?;
        Ok(page.connection(accounts, |account| account.id, User))
    }

    /// What happened to accounts and who did it, the newest first, page by page. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "PageSize::default().cost(first, None, child_complexity)")]
    async fn account_changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only to this account.")] user_id: Option<Uuid>,
        #[graphql(desc = "So many, at most 100. 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor.")] after: Option<String>,
    ) -> Result<Connection<Cursor<i64>, AccountChange>> {
        let page = Page::<i64>::parse(first, after, None, None, PageSize::default())?;
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let changes = account::changes(&mut conn, user_id, page.after, page.fetch()).await?;
        Ok(page.connection(changes, |change| change.id, AccountChange))
    }
}
