//! Checks on a live database that stock adds up, with one snapshot and no lock.

use database::Pool;

use crate::config::Database;

/// A product whose stock does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The product.
    pub product_id: i64,
    /// What is in the warehouse, by its stock row; 0 where it has none.
    pub on_hand: i64,
    /// What is in the warehouse, by the sum of its movements.
    pub moved: i64,
    /// What is held, by its stock row; 0 where it has none.
    pub reserved: i64,
    /// What is held, by the sum of its live holds.
    pub held: i64,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { product_id, on_hand, moved, reserved, held } = self;
        write!(
            f,
            "product {product_id}: on hand {on_hand}, by its movements {moved}; reserved {reserved}, by its holds {held}"
        )
    }
}

/// Every product that breaks `0 ≤ reserved ≤ on_hand`, `on_hand = Σ movements` or `reserved = Σ live holds`.
///
/// # Errors
/// Those of the database.
pub async fn examine(pool: &Pool) -> sqlx::Result<Vec<Drift>> {
    sqlx::query_as!(
        Drift,
        r#"with moved as (
               select product_id, sum(quantity)::bigint as quantity
               from movements
               group by product_id
           ), held as (
               select line.product_id, sum(line.quantity)::bigint as quantity
               from holds, unnest(holds.product_ids, holds.quantities) as line (product_id, quantity)
               where holds.status = 'held'
               group by line.product_id
           ), totals as (
               select
                   product_id,
                   coalesce(stock.on_hand, 0) as on_hand,
                   coalesce(moved.quantity, 0) as moved,
                   coalesce(stock.reserved, 0) as reserved,
                   coalesce(held.quantity, 0) as held
               from stock
               full join moved using (product_id)
               full join held using (product_id)
           )
           select
               product_id as "product_id!",
               on_hand as "on_hand!",
               moved as "moved!",
               reserved as "reserved!",
               held as "held!"
           from totals
           where on_hand <> moved or reserved <> held or not (0 <= reserved and reserved <= on_hand)
           order by product_id"#,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await
}

/// Examines the database and prints what it finds.
///
/// # Errors
/// When there is any drift, or the database cannot be read.
pub async fn run(database: &Database) -> anyhow::Result<()> {
    let drift = examine(&crate::database(database)?.pool).await?;
    for product in &drift {
        println!("{product}");
    }
    anyhow::ensure!(drift.is_empty(), "{} products do not add up", drift.len());
    println!("stock adds up: on hand is the sum of its movements, reserved the sum of its holds");
    Ok(())
}
