//! What is sold: the products of the catalogue with their stock, and what people do to them.
//!
//! Every function borrows a connection; those that change something want it inside a transaction, which the caller
//! commits, or rolls back when there is an [`Error`].
//!
//! **Architecture Invariant:** each change puts its event into the outbox in the same transaction.

mod draft;
mod edits;
mod page;

use ::events::inventory::{ProductChanged, ProductDeleted};
use chrono::{DateTime, Utc};
use messaging::{Outgoing, Trace, outbox};
use rust_decimal::Decimal;
use sqlx::PgConnection;

use crate::ledger;
use crate::stock::Level;

pub use draft::{Batch, Draft, Edit, Form, Invalid, InvalidRow, MAX_BATCH_ROWS, MAX_ON_HAND};
pub use edits::{Change, ProductEdit, edits};
pub use page::{Field, Filter, Order, Place, Slice, count, page};

/// A product that is sold, and how much there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its id, for ever.
    pub id: i64,
    /// Its stock keeping unit, unlike that of any other product that is sold.
    pub sku: String,
    /// What it is called.
    pub name: String,
    /// What there is to say about it; may be empty.
    pub description: String,
    /// Its price in the shop's currency, with two decimals.
    pub price: Decimal,
    /// Grows with every edit, not with stock.
    pub version: i64,
    /// When it came into the catalogue.
    pub created_at: DateTime<Utc>,
    /// When it was last edited.
    pub updated_at: DateTime<Utc>,
    /// How many are in the warehouse.
    pub on_hand: i64,
    /// How many of them are held for orders.
    pub reserved: i64,
}

impl Product {
    /// How much there is of it.
    pub fn level(&self) -> Level {
        Level { on_hand: self.on_hand, reserved: self.reserved }
    }
}

/// Who causes a change, and in which trace.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Who it is in the ledger and in the history of products: an account's id, or a program.
    pub actor: String,
    /// The trace its events belong to.
    pub trace: Trace,
}

/// Why the catalogue was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It never existed or was deleted.
    #[error("there is no product {0}")]
    Unknown(i64),
    /// Another product is sold under this SKU.
    #[error("the SKU {0:?} is taken")]
    SkuTaken(String),
    /// Other products are sold under the SKUs of these rows of a batch.
    #[error("{} of the SKUs are taken", .0.len())]
    SkusTaken(Vec<(usize, String)>),
    /// Somebody else has edited it: this is what it is now.
    #[error("product {} is at version {}, which is not the expected one", .0.id, .0.version)]
    Stale(Box<Product>),
    /// Orders wait for it.
    #[error("product {} cannot be deleted while {} of it are held for orders", .0.id, .0.reserved)]
    Held(Box<Product>),
    /// The database failed.
    #[error("the catalogue cannot be reached")]
    Database(#[from] sqlx::Error),
    /// An event could not be written.
    #[error("the event cannot be written")]
    Event(#[from] serde_json::Error),
}

/// Reads products that are sold, with their stock: the rest of the statement begins after `where deleted_at is null`.
macro_rules! products {
    ($($rest:literal)+; $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Product,
            "select id, sku, name, description, price, version, created_at, updated_at, on_hand, reserved
             from products
             join stock on product_id = id
             where deleted_at is null
             " $(+ $rest)+,
            $($argument),*
        )
    };
}
use products;

/// The product with this id.
///
/// # Errors
/// Those of the database.
pub async fn find(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<Product>> {
    products!("and id = $1"; id).fetch_optional(conn).await
}

/// The product with this SKU.
///
/// # Errors
/// Those of the database.
pub async fn find_by_sku(conn: &mut PgConnection, sku: &str) -> sqlx::Result<Option<Product>> {
    products!("and sku = $1"; sku).fetch_optional(conn).await
}

/// Those of the products with these ids that are sold, in any order.
///
/// # Errors
/// Those of the database.
pub async fn find_many(conn: &mut PgConnection, ids: &[i64]) -> sqlx::Result<Vec<Product>> {
    products!("and id = any($1)"; ids).fetch_all(conn).await
}

/// The product with this id, whose stock nobody else changes until the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn lock_stock(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<Product>> {
    products!("and id = $1 for update of stock"; id).fetch_optional(conn).await
}

/// Adds a product; its initial stock is a movement `received`.
///
/// # Errors
/// [`Error::SkuTaken`].
pub async fn create(conn: &mut PgConnection, draft: Draft, cause: &Cause) -> Result<Product, Error> {
    let drafts = [draft];
    let product = insert(conn, &drafts, cause).await?.pop();
    let [draft] = drafts;
    product.ok_or_else(|| Error::SkuTaken(draft.into_sku()))
}

/// Adds many products, all or none, with as many statements as for two. They come back in the order of the batch.
///
/// # Errors
/// [`Error::SkusTaken`].
pub async fn import(conn: &mut PgConnection, batch: &Batch, cause: &Cause) -> Result<Vec<Product>, Error> {
    take_turns(conn).await?;
    let products = insert(conn, batch.drafts(), cause).await?;
    if products.len() == batch.drafts().len() {
        return Ok(products);
    }
    let mut added = products.iter().map(|product| product.sku.as_str()).peekable();
    let rows = batch.drafts().iter().map(Draft::sku).enumerate();
    let taken = rows.filter(|(_, sku)| added.next_if_eq(sku).is_none());
    Err(Error::SkusTaken(taken.map(|(row, sku)| (row, sku.to_owned())).collect()))
}

/// Lets one import at a time go on, until its transaction ends: two that have SKUs in common could otherwise each wait
/// for the other's.
///
/// # Errors
/// Those of the database.
pub async fn take_turns(conn: &mut PgConnection) -> sqlx::Result<()> {
    /// "import" in ASCII.
    const LOCK: i64 = 0x696d_706f_7274;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(conn).await?;
    Ok(())
}

/// Adds the products whose SKU is not taken; the SKUs of the drafts differ.
async fn insert(conn: &mut PgConnection, drafts: &[Draft], cause: &Cause) -> Result<Vec<Product>, Error> {
    let columns = draft::Columns::of(drafts);
    let products = sqlx::query_as!(
        Product,
        r#"with draft as (
             select *
             from unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $5::bigint[])
               with ordinality as draft (sku, name, description, price, on_hand, row)
           ), product as (
             insert into products (sku, name, description, price)
             select sku, name, description, price
             from draft
             order by row
             on conflict (sku) where deleted_at is null do nothing
             returning *
           ), added as (
             insert into stock (product_id, on_hand)
             select product.id, draft.on_hand
             from product
             join draft using (sku)
           ), received as (
             insert into movements (product_id, quantity, reason, actor)
             select product.id, draft.on_hand, 'received', $6
             from product
             join draft using (sku)
             where draft.on_hand > 0
           )
           select product.id as "id!", sku as "sku!", product.name as "name!", product.description as "description!",
             product.price as "price!", version as "version!", created_at as "created_at!", updated_at as "updated_at!",
             draft.on_hand as "on_hand!", 0::bigint as "reserved!"
           from product
           join draft using (sku)
           order by draft.row"#,
        &columns.skus,
        &columns.names,
        &columns.descriptions,
        &columns.prices,
        &columns.on_hands,
        cause.actor,
    )
    .fetch_all(&mut *conn)
    .await?;
    tell_changed(conn, &products, Change::Created, cause).await?;
    Ok(products)
}

/// Edits a product that is still at the version its editor saw.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Stale`], [`Error::SkuTaken`].
pub async fn update(
    conn: &mut PgConnection,
    id: i64,
    expected_version: i64,
    edit: &Edit,
    cause: &Cause,
) -> Result<Product, Error> {
    let Form { sku, name, description, price } = edit.form();
    let updated = sqlx::query_as!(
        Product,
        "update products
         set sku = coalesce($3, sku),
           name = coalesce($4, name),
           description = coalesce($5, description),
           price = coalesce($6, price),
           version = version + 1,
           updated_at = now()
         from stock
         where id = $1
           and version = $2
           and deleted_at is null
           and product_id = id
         returning id, sku, name, description, price, version, created_at, updated_at, on_hand, reserved",
        id,
        expected_version,
        sku.as_deref(),
        name.as_deref(),
        description.as_deref(),
        *price,
    )
    .fetch_optional(&mut *conn)
    .await;
    let product = match updated {
        Ok(Some(product)) => product,
        Ok(None) => {
            let current = find(conn, id).await?.ok_or(Error::Unknown(id))?;
            return Err(Error::Stale(Box::new(current)));
        }
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("products_sku_key") => {
            return Err(Error::SkuTaken(sku.clone().unwrap_or_default()));
        }
        Err(error) => return Err(error.into()),
    };
    tell_changed(conn, std::slice::from_ref(&product), Change::Edited, cause).await?;
    Ok(product)
}

/// Takes a product out of the catalogue, with what is left of its stock. Its movements and holds stay.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Held`].
pub async fn delete(conn: &mut PgConnection, id: i64, cause: &Cause) -> Result<Product, Error> {
    let product = lock_stock(conn, id).await?.ok_or(Error::Unknown(id))?;
    if product.reserved > 0 {
        return Err(Error::Held(Box::new(product)));
    }
    sqlx::query!(
        "insert into movements (product_id, quantity, reason, note, actor)
         select product_id, -on_hand, 'adjusted', $3, $2
         from stock
         where product_id = $1
           and on_hand > 0",
        id,
        cause.actor,
        ledger::PRODUCT_DELETED,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("delete from stock where product_id = $1", id).execute(&mut *conn).await?;
    // Read again: it may have been edited since its stock was locked.
    let product = sqlx::query_as!(
        Product,
        r#"update products
           set deleted_at = now(),
             updated_at = now(),
             version = version + 1
           where id = $1
           returning id, sku, name, description, price, version, created_at, updated_at,
             0::bigint as "on_hand!", 0::bigint as "reserved!""#,
        id,
    )
    .fetch_one(&mut *conn)
    .await?;
    edits::record(conn, std::slice::from_ref(&product), Change::Deleted, cause).await?;
    let event = ProductDeleted {
        product_id: product.id,
        sku: product.sku.clone(),
        name: product.name.clone(),
        price: product.price,
        version: product.version,
    };
    outbox::enqueue(conn, &[Outgoing::of(&event, cause.trace)?]).await?;
    Ok(product)
}

async fn tell_changed(
    conn: &mut PgConnection,
    products: &[Product],
    change: Change,
    cause: &Cause,
) -> Result<(), Error> {
    edits::record(conn, products, change, cause).await?;
    let events = products.iter().map(|product| {
        let event = ProductChanged {
            product_id: product.id,
            sku: product.sku.clone(),
            name: product.name.clone(),
            price: product.price,
            version: product.version,
        };
        Outgoing::of(&event, cause.trace)
    });
    let events = events.collect::<serde_json::Result<Vec<_>>>()?;
    Ok(outbox::enqueue(conn, &events).await?)
}
