//! What the shop sells, as inventory last told: a copy, so that orders are priced whether inventory is up or not.

pub mod fill;
mod unlisted;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use events::inventory::ProductEvent;
use rust_decimal::Decimal;
use sqlx::PgConnection;

use crate::checkout::MAX_AMOUNT;

/// A product and its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its id in inventory.
    pub product_id: i64,
    /// Its stock keeping unit.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// What one of it costs.
    pub price: Decimal,
    /// Which edit of it this is.
    pub version: i64,
}

/// What became of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    product: Product,
    deleted: bool,
}

/// Why a change cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChange {
    /// The database keeps amounts of 12 digits, two of them behind the point.
    #[error("a price of {0} cannot be charged")]
    Price(Decimal),
    /// PostgreSQL stores no NUL in a text.
    #[error("its sku or name contains NUL")]
    Nul,
}

impl Change {
    fn of(product: Product, deleted: bool) -> Result<Self, InvalidChange> {
        let price = product.price;
        if !(Decimal::ZERO..=MAX_AMOUNT).contains(&price) || price.normalize().scale() > MAX_AMOUNT.scale() {
            return Err(InvalidChange::Price(price));
        }
        if product.sku.contains('\0') || product.name.contains('\0') {
            return Err(InvalidChange::Nul);
        }
        Ok(Self { product, deleted })
    }
}

impl TryFrom<ProductEvent> for Change {
    type Error = InvalidChange;

    fn try_from(event: ProductEvent) -> Result<Self, InvalidChange> {
        macro_rules! product {
            ($event:ident) => {
                Product {
                    product_id: $event.product_id,
                    sku: $event.sku,
                    name: $event.name,
                    price: $event.price,
                    version: $event.version,
                }
            };
        }
        match event {
            ProductEvent::Changed(event) => Self::of(product!(event), false),
            ProductEvent::Deleted(event) => Self::of(product!(event), true),
        }
    }
}

/// Those of the products that are sold, by their ids.
///
/// # Errors
/// Those of the database.
pub async fn sold(conn: &mut PgConnection, product_ids: &[i64]) -> sqlx::Result<HashMap<i64, Product>> {
    let products = sqlx::query_as!(
        Product,
        "select product_id, sku, name, price, version
         from catalogue
         where product_id = any($1) and not deleted",
        product_ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(products.into_iter().map(|product| (product.product_id, product)).collect())
}

/// Keeps what is newer than what is known. One statement, however many; repeated or late changes change nothing.
///
/// # Errors
/// Those of the database.
pub async fn keep(conn: &mut PgConnection, changes: impl IntoIterator<Item = Change>) -> sqlx::Result<()> {
    store(conn, changes, None).await
}

/// Stores changes that are newer by their versions, and every change of a product that nothing has told of since
/// `fill_began`.
async fn store(
    conn: &mut PgConnection,
    changes: impl IntoIterator<Item = Change>,
    fill_began: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    let newest = newest(changes);
    if newest.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($get:expr) => {
            &newest.values().map($get).collect::<Vec<_>>()
        };
    }
    // In the order of the ids, in which every batch locks the rows it meets.
    sqlx::query!(
        "insert into catalogue (product_id, sku, name, price, version, deleted)
         select *
         from unnest($1::bigint[], $2::text[], $3::text[], $4::numeric[], $5::bigint[], $6::bool[])
         on conflict (product_id) do update
         set sku = excluded.sku,
             name = excluded.name,
             price = excluded.price,
             version = excluded.version,
             deleted = excluded.deleted,
             told_at = greatest(catalogue.told_at, now())
         where catalogue.version < excluded.version
            or catalogue.told_at < $7",
        column!(|change| change.product.product_id),
        column!(|change| change.product.sku.as_str()) as &[&str],
        column!(|change| change.product.name.as_str()) as &[&str],
        column!(|change| change.product.price),
        column!(|change| change.product.version),
        column!(|change| change.deleted),
        fill_began,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn newest(changes: impl IntoIterator<Item = Change>) -> BTreeMap<i64, Change> {
    let mut newest: BTreeMap<i64, Change> = BTreeMap::new();
    for change in changes {
        match newest.get(&change.product.product_id) {
            Some(known) if known.product.version >= change.product.version => (),
            _ => {
                newest.insert(change.product.product_id, change);
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use events::inventory::ProductChanged;

    use super::*;

    fn changed(price: &str, name: &str) -> Result<Change, InvalidChange> {
        let (sku, name, price) = ("KB-60".into(), name.into(), price.parse().unwrap());
        ProductEvent::Changed(ProductChanged { product_id: 1, sku, name, price, version: 1 }).try_into()
    }

    #[test]
    fn a_price_that_cannot_be_charged_is_refused() {
        for fine in ["0", "59.9", "59.90", "59.900", "9999999999.99"] {
            assert!(changed(fine, "Kettle").is_ok(), "{fine}");
        }
        for wrong in ["-0.01", "59.901", "10000000000"] {
            let price = wrong.parse().unwrap();
            assert_eq!(changed(wrong, "Kettle"), Err(InvalidChange::Price(price)));
        }
    }

    #[test]
    fn a_name_the_database_cannot_store_is_refused() {
        assert_eq!(changed("1", "Ket\0tle"), Err(InvalidChange::Nul));
    }
}
