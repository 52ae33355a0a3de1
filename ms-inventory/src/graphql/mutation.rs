//! What can be changed. Each change is one transaction, and so are the events that tell of it.

use ::graphql::{CHANGE_COST, Id, Refusal};
use async_graphql::{Context, Object};
use auth::guard::caller;
use database::{Pool, Transaction};
use messaging::Trace;
use messaging::outbox::Relay;

use super::error::{Result, invalid, invalid_rows};
use super::movement::AdjustStockInput;
use super::product::{Product, ProductInput, UpdateProductInput};
use crate::ledger;
use crate::product::{self, Batch, Cause, MAX_BATCH_ROWS};

/// The root of mutations.
#[derive(Debug)]
pub struct Mutation;

/// What can be changed in inventory. Each mutation happens as a whole or not at all, and needs the role ADMIN.
#[Object]
impl Mutation {
    /// Adds a product to the catalogue. CONFLICT if its SKU is taken.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn create_product(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The product.")] input: ProductInput,
    ) -> Result<Product> {
        let draft = input.draft().map_err(invalid)?;
        let mut tx = begin(ctx).await?;
        let product = product::create(&mut tx, draft, &cause(ctx)?).await?;
        commit(ctx, tx).await?;
        Ok(Product(product))
    }

    /// Edits a product. NOT_FOUND if there is none; CONFLICT if somebody else has edited it since, with what it is now
    /// in `extensions.current`, or if the new SKU is taken.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn update_product(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The product's id.")] id: Id,
        #[graphql(desc = "What to change.")] input: UpdateProductInput,
    ) -> Result<Product> {
        let expected_version = input.expected_version.into();
        let edit = input.edit().map_err(invalid)?;
        let mut tx = begin(ctx).await?;
        let product = product::update(&mut tx, id.0, expected_version, &edit, &cause(ctx)?).await?;
        commit(ctx, tx).await?;
        Ok(Product(product))
    }

    /// Takes a product out of the catalogue, with what is left of its stock, and returns it without any. Its movements
    /// and holds stay, and its SKU is free again. NOT_FOUND if there is none; CONFLICT while any of it is held for
    /// orders.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn delete_product(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The product's id.")] id: Id,
    ) -> Result<Product> {
        let mut tx = begin(ctx).await?;
        let product = product::delete(&mut tx, id.0, &cause(ctx)?).await?;
        commit(ctx, tx).await?;
        Ok(Product(product))
    }

    /// Adds to what is on hand of a product, or takes away from it, and books it in the ledger. NOT_FOUND if there is
    /// no such product; CONFLICT if there is not what was expected, if fewer would be left than are held for orders
    /// (`extensions.constraint` is then `no_oversell`), or if the idempotency key was used for something else.
    /// `extensions.current` tells the levels.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn adjust_stock(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The adjustment.")] input: AdjustStockInput,
    ) -> Result<Product> {
        let mut tx = begin(ctx).await?;
        let product = ledger::adjust(&mut tx, &input.into(), &cause(ctx)?).await?;
        commit(ctx, tx).await?;
        Ok(Product(product))
    }

    /// Adds up to 10000 products, all or none, and returns them in the same order. What is wrong with them is listed in
    /// `extensions.rows` as `{row, field, message}`, rows counted from 0, at most 100 entries: INVALID for what is
    /// wrong by itself, CONFLICT for SKUs that are taken.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn import_products(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The products, best sent as a variable.")] inputs: Vec<ProductInput>,
    ) -> Result<Vec<Product>> {
        if inputs.len() > MAX_BATCH_ROWS {
            let message = format!("{} rows are more than {MAX_BATCH_ROWS}", inputs.len());
            return Err(Refusal::invalid(message).with("max", MAX_BATCH_ROWS as u64).into());
        }
        let batch = Batch::of(inputs.into_iter().map(ProductInput::draft)).map_err(invalid_rows)?;
        let mut tx = begin(ctx).await?;
        let products = product::import(&mut tx, &batch, &cause(ctx)?).await?;
        commit(ctx, tx).await?;
        Ok(products.into_iter().map(Product).collect())
    }
}

async fn begin(ctx: &Context<'_>) -> Result<Transaction> {
    Ok(ctx.data::<Pool>()?.begin().await?)
}

async fn commit(ctx: &Context<'_>, tx: Transaction) -> Result<()> {
    tx.commit().await?;
    ctx.data::<Relay>()?.wake();
    Ok(())
}

/// The events of a change belong to the trace of the request that asked for it.
fn cause(ctx: &Context<'_>) -> Result<Cause> {
    Ok(Cause { actor: caller(ctx)?.user_id.to_string(), trace: *ctx.data::<Trace>()? })
}
