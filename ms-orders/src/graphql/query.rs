use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result};
use auth::Role;
use auth::guard::caller;
use database::Pool;
use events::OrderId;
use graphql::Refusal;
use graphql::page::{Cursor, Page, PageSize};
use uuid::Uuid;

use super::error::refused;
use super::types::{Count, ItemInput, Order, OrderStatus, Quote, basket};
use crate::config::Shop;
use crate::{catalogue, checkout, order};

/// The most orders that are listed as stuck.
const MAX_STUCK: usize = 100;

const YEAR_SECONDS: i32 = 31_536_000;

/// What can be asked.
#[derive(Debug)]
pub struct Query;

/// What can be asked.
#[Object]
impl Query {
    /// An order by its id; null where there is none, or it is somebody else's and the caller no ADMIN.
    #[graphql(guard = "auth::guard::user")]
    async fn order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's id, such as `ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV`.")] id: ID,
    ) -> Result<Option<Order>> {
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let caller = caller(ctx)?;
        let order = order::find(&mut conn, &id).await?;
        Ok(order.filter(|order| caller.may_see(order.user_id)).map(Order))
    }

    /// The orders of the caller, newest first; to an ADMIN, those of everybody.
    #[graphql(guard = "auth::guard::user", complexity = "PageSize::default().cost(first, None, child_complexity)")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many: 20 if not said, and at most 100.")] first: Option<i32>,
        #[graphql(desc = "The cursor of the order they follow.")] after: Option<String>,
        #[graphql(desc = "Only those that are this.")] status: Option<OrderStatus>,
        #[graphql(desc = "Only those of this account. FORBIDDEN if it is another's and the caller no ADMIN.")] user_id: Option<Uuid>,
    ) -> Result<Connection<Cursor<OrderId>, Order, Count>> {
        // A cursor of an order id: what else it is made of is refused, before it reaches the database.
        let page = Page::<OrderId>::parse(first, after, None, None, PageSize::default())?;
        let caller = caller(ctx)?;
        if user_id.is_some_and(|user_id| !caller.may_see(Some(user_id))) {
            return Err(Refusal::forbidden("the orders of others need the role ADMIN").with("field", "userId").into());
        }
        let user_id = if caller.role == Role::Admin { user_id } else { Some(caller.user_id) };
        let filter = order::Filter { user_id, status: status.map(Into::into) };
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let before = page.after.as_ref().map(OrderId::as_str);
        let rows = order::page(&mut conn, filter, before, page.fetch()).await?;
        let rows: Vec<(OrderId, order::Order)> =
            rows.into_iter().map(|row| Ok((OrderId::try_from(row.id.clone())?, row))).collect::<Result<_>>()?;
        Ok(page.connection_with(rows, |(id, _)| id.clone(), |(_, row)| Order(row), Count(filter)))
    }

    /// Orders for which something has been outstanding for longer than it should: an answer of inventory, a payment, or its
    /// return. The oldest first, at most 100. `explain` says what each waits for. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "1 + MAX_STUCK * child_complexity")]
    async fn stuck_orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "For how long nothing may have happened: 0 to 31 536 000.", default = 300)]
        older_than_seconds: i32,
    ) -> Result<Vec<Order>> {
        if !(0..=YEAR_SECONDS).contains(&older_than_seconds) {
            let message = format!("olderThanSeconds must be between 0 and {YEAR_SECONDS}");
            return Err(Refusal::invalid(message).with("field", "olderThanSeconds").into());
        }
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let stuck = order::stuck(&mut conn, older_than_seconds, MAX_STUCK as i64).await?;
        Ok(stuck.into_iter().map(Order).collect())
    }

    /// What items cost now, fee included. Nothing is stored or reserved.
    #[graphql(complexity = "1 + items.len() * (1 + child_complexity)")]
    async fn quote(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to price: 1 to 1 000 items.")] items: Vec<ItemInput>,
    ) -> Result<Quote> {
        let basket = basket(&items)?;
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let sold = catalogue::sold(&mut conn, &basket.product_ids()).await?;
        let quote = checkout::quote(&basket, &sold, ctx.data::<Shop>()?.fee_percent);
        Ok(Quote(quote.map_err(|reason| refused(&reason))?))
    }
}
