//! Reads the products that a whole answer speaks of with one statement.

use std::collections::HashMap;
use std::sync::Arc;

use ::graphql::Id;
use async_graphql::Context;
use async_graphql::dataloader::{DataLoader, Loader};
use database::Pool;

use super::error::Result;
use super::product::Product;
use crate::product;

/// Loads products by id, without keeping them.
pub(super) fn products(pool: Pool) -> DataLoader<Products> {
    DataLoader::new(Products(pool), tokio::spawn)
}

/// The product with this id, if it is sold.
pub(super) async fn product(ctx: &Context<'_>, id: i64) -> Result<Option<Product>> {
    let products = ctx.data::<DataLoader<Products>>()?;
    Ok(products.load_one(Id(id)).await?.map(Product))
}

pub(super) struct Products(Pool);

impl Loader<Id> for Products {
    type Value = product::Product;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, ids: &[Id]) -> std::result::Result<HashMap<Id, product::Product>, Arc<sqlx::Error>> {
        let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        let mut conn = self.0.acquire().await?;
        let products = product::find_many(&mut conn, &ids).await?;
        Ok(products.into_iter().map(|product| (Id(product.id), product)).collect())
    }
}
