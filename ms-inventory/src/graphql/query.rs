//! What can be asked.

use ::graphql::page::{Cursor, Page, PageSize};
use ::graphql::{Id, Ready, Refusal, text};
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, ID, Object};
use chrono::{DateTime, Utc};

use super::connection::connection;
use super::edit::ProductEdit;
use super::error::Result;
use super::hold::{Hold, HoldStatus};
use super::movement::Movement;
use super::product::{Product, ProductFilter, ProductOrder, ProductTotals};
use crate::hold::read;
use crate::product::{Field, Order, Place, Slice};
use crate::{ledger, product};

/// 20 unless the client says, 100 at most.
const PAGE: PageSize = PageSize { default: 20, max: 100 };

/// The longest SKU or order id anybody looks for, in characters.
const MAX_KEY_CHARS: usize = 64;

/// The root of queries.
#[derive(Debug)]
pub struct Query;

/// What can be asked of inventory.
#[Object]
impl Query {
    /// One product, by id or by SKU; null if there is none, or it was deleted. INVALID unless exactly one is given.
    async fn product(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The product's id.")] id: Option<Id>,
        #[graphql(desc = "The product's stock keeping unit, exactly.")] sku: Option<String>,
    ) -> Result<Option<Product>> {
        let found = match (id, sku) {
            (Some(Id(id)), None) => product::find(&mut *connection(ctx).await?, id).await?,
            (None, Some(sku)) => {
                text("sku", &sku, MAX_KEY_CHARS)?;
                product::find_by_sku(&mut *connection(ctx).await?, &sku).await?
            }
            _ => return Err(Refusal::invalid("give either id or sku").into()),
        };
        Ok(found.map(Product))
    }

    /// The catalogue, page by page.
    #[graphql(complexity = "PAGE.cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "they are Relay's")]
    async fn products(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. 20 if neither this nor last is given.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor of the same order.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100. Not together with first.")] last: Option<i32>,
        #[graphql(desc = "Only those that come before this cursor of the same order.")] before: Option<String>,
        #[graphql(desc = "Which products. All if left out.")] filter: Option<ProductFilter>,
        #[graphql(desc = "In which order. By id, the smallest first, if left out.")] order_by: Option<ProductOrder>,
    ) -> Result<Connection<Cursor<Place>, Ready<Product>, ProductTotals>> {
        let order = order_by.map_or(ORDER, Order::from);
        let filter = filter.map(ProductFilter::parse).transpose()?.unwrap_or_default();
        let page = Page::<Place>::parse(first, after, last, before, PAGE)?;
        in_order("after", page.after.as_ref(), order.field)?;
        in_order("before", page.before.as_ref(), order.field)?;

        let slice = Slice {
            after: page.after.as_ref(),
            before: page.before.as_ref(),
            backward: page.backward,
            limit: page.fetch(),
        };
        let mut conn = connection(ctx).await?;
        let products = product::page(&mut conn, &filter, order, slice).await?;
        let place = |product: &product::Product| Place::of(product, order.field);
        Ok(page.connection_with(products, place, |product| Ready(Product(product)), ProductTotals { filter }))
    }

    /// What is held for an order; null if the order never came here. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin")]
    async fn hold(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's public id.")] order_id: ID,
    ) -> Result<Option<Hold>> {
        text("orderId", &order_id, MAX_KEY_CHARS)?;
        let mut conn = connection(ctx).await?;
        Ok(read::find(&mut conn, &order_id).await?.map(Hold))
    }

    /// What is or was held for orders, the newest first, page by page. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "PAGE.cost(first, None, child_complexity)")]
    async fn holds(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only for orders of this product.")] product_id: Option<Id>,
        #[graphql(desc = "Only in this state.")] status: Option<HoldStatus>,
        #[graphql(desc = "So many, at most 100. 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor.")] after: Option<String>,
    ) -> Result<Connection<Cursor<(DateTime<Utc>, String)>, Hold>> {
        let page = Page::parse(first, after, None, None, PAGE)?;
        let filter = read::Filter { product_id: product_id.map(|id| id.0), status: status.map(Into::into) };
        let mut conn = connection(ctx).await?;
        let holds = read::page(&mut conn, filter, page.after.as_ref(), page.fetch()).await?;
        let place = |hold: &read::Hold| (hold.created_at, hold.order_id.clone());
        Ok(page.connection_with(holds, place, Hold, EmptyFields))
    }

    /// How stock came and went, the newest first, page by page. Movements of deleted products stay. Needs
    /// the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "PAGE.cost(first, None, child_complexity)")]
    async fn movements(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only of this product.")] product_id: Option<Id>,
        #[graphql(desc = "So many, at most 100. 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor.")] after: Option<String>,
    ) -> Result<Connection<Cursor<i64>, Movement>> {
        let page = Page::parse(first, after, None, None, PAGE)?;
        let mut conn = connection(ctx).await?;
        let product_id = product_id.map(|id| id.0);
        let movements = ledger::page(&mut conn, product_id, page.after, page.fetch()).await?;
        Ok(page.connection(movements, |movement| movement.id, Movement))
    }

    /// Who changed which product, and to what, the newest first, page by page. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "PAGE.cost(first, None, child_complexity)")]
    async fn product_edits(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only of this product.")] product_id: Option<Id>,
        #[graphql(desc = "So many, at most 100. 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those that come after this cursor.")] after: Option<String>,
    ) -> Result<Connection<Cursor<i64>, ProductEdit>> {
        let page = Page::parse(first, after, None, None, PAGE)?;
        let mut conn = connection(ctx).await?;
        let edits = product::edits(&mut conn, product_id.map(|id| id.0), page.after, page.fetch()).await?;
        Ok(page.connection(edits, |edit| edit.id, ProductEdit))
    }
}

const ORDER: Order = Order { field: Field::Id, descending: false };

/// A cursor of another order would be a place in the middle of nowhere.
fn in_order(name: &'static str, place: Option<&Place>, field: Field) -> std::result::Result<(), Refusal> {
    if place.is_some_and(|place| place.field() != field) {
        return Err(Refusal::invalid(format!("{name} is not a cursor of this order")).with("field", name));
    }
    Ok(())
}
