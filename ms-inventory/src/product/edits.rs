use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::{Cause, Product};

/// A product after somebody changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductEdit {
    /// Grows from one to the next.
    pub id: i64,
    /// The product.
    pub product_id: i64,
    /// Its version since.
    pub version: i64,
    /// What was done.
    pub change: Change,
    /// Its SKU since.
    pub sku: String,
    /// Its name since.
    pub name: String,
    /// Its price since.
    pub price: Decimal,
    /// Who did it: an account's id, or a program. Empty where that was not written down yet.
    pub actor: String,
    /// The trace it was done in.
    pub trace_id: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What was done to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "product_change", rename_all = "snake_case")]
pub enum Change {
    /// It came into the catalogue.
    Created,
    /// It was edited.
    Edited,
    /// It was taken out of the catalogue.
    Deleted,
}

/// Writes down what was done to products.
pub(super) async fn record(
    conn: &mut PgConnection,
    products: &[Product],
    change: Change,
    cause: &Cause,
) -> sqlx::Result<()> {
    macro_rules! column {
        ($get:expr) => {
            &products.iter().map($get).collect::<Vec<_>>()
        };
    }
    sqlx::query!(
        "insert into product_edits (product_id, version, change, sku, name, price, actor, trace_id)
         select product_id, version, $6, sku, name, price, $7, $8
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::numeric[])
           as edited (product_id, version, sku, name, price)",
        column!(|product| product.id),
        column!(|product| product.version),
        column!(|product| product.sku.as_str()) as &[&str],
        column!(|product| product.name.as_str()) as &[&str],
        column!(|product| product.price),
        change as Change,
        cause.actor,
        cause.trace.to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was done to one product or to all, the newest first; `before` is the id of the edit they come after.
///
/// # Errors
/// Those of the database.
pub async fn edits(
    conn: &mut PgConnection,
    product_id: Option<i64>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<ProductEdit>> {
    sqlx::query_as!(
        ProductEdit,
        r#"select id, product_id, version, change as "change: Change", sku, name, price, actor, trace_id, at
           from product_edits
           where ($1::bigint is null or product_id = $1)
             and ($2::bigint is null or id < $2)
           order by id desc
           limit $3"#,
        product_id,
        before,
        limit,
    )
    .fetch_all(conn)
    .await
}
