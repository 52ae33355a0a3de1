//! What the shop sells: far more stock than will be sold, so that nothing but a sold-out product is ever short.

use anyhow::Result;
use dev::psql;

/// Pieces of each product.
pub(super) const PLENTY: i64 = 1_000_000_000_000;

/// Fills an empty database with so many products, and one more that is sold out.
pub(super) fn fill(database_url: &str, products: i64) -> Result<()> {
    let id = format!("generate_series(1, {products} + 1) as id");
    let on_hand = format!("case when id <= {products} then {PLENTY} else 0 end");
    psql::execute(
        database_url,
        &[
            &names(products + 1),
            &format!("insert into stock (product_id, on_hand) select id, {on_hand} from {id}"),
            &format!(
                "insert into movements (product_id, quantity, reason, actor) \
                 select id, {PLENTY}, 'received', 'bench' from {id} where id <= {products}"
            ),
            NEXT_ID,
            "vacuum analyze",
        ],
    )?;
    Ok(())
}

/// Inserts so many products, which have no stock yet.
pub(super) fn names(products: i64) -> String {
    format!(
        "insert into products (id, sku, name, price) overriding system value \
         select id, 'SKU-' || id, 'Product ' || id, 9.99 from generate_series(1, {products}) as id"
    )
}

/// Lets the next product have an id of its own.
pub(super) const NEXT_ID: &str =
    "select setval(pg_get_serial_sequence('products', 'id'), (select max(id) from products))";
