//! A page costs the same wherever it is: PostgreSQL itself counts the rows it looks at.

use ms_inventory::product::{self, Field, Filter, Order, Place, Slice};
use sqlx::PgConnection;

use crate::world::World;

const PRODUCTS: i64 = 20_000;

/// The rows that were read from tables and indexes so far.
async fn rows_read(conn: &mut PgConnection) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut *conn).await.unwrap();
    sqlx::query_scalar(
        "select (select sum(seq_tup_read) from pg_stat_user_tables)::bigint
             + (select sum(idx_tup_read) from pg_stat_user_indexes)::bigint",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

/// A catalogue in which no field orders products as another does.
async fn fill(conn: &mut PgConnection) {
    sqlx::query(
        "with product as (
             insert into products (sku, name, price, updated_at)
             select md5(n::text), md5((n * 7)::text), n * 37 % 10000 / 100.0, now() - make_interval(secs => n * 11 % 9999)
             from generate_series(1, $1) as n
             returning id
         )
         insert into stock (product_id, on_hand)
         select id, 1 from product",
    )
    .bind(PRODUCTS)
    .execute(&mut *conn)
    .await
    .unwrap();
    sqlx::query("vacuum analyze").execute(&mut *conn).await.unwrap();
}

#[tokio::test]
async fn a_page_in_the_middle_reads_little_more_than_its_rows() {
    let world = World::new().await;
    let mut conn = world.pool.acquire().await.unwrap();
    fill(&mut conn).await;

    for field in [Field::Id, Field::Name, Field::Sku, Field::Price, Field::UpdatedAt] {
        for descending in [false, true] {
            let order = Order { field, descending };
            let half = Slice { after: None, before: None, backward: false, limit: PRODUCTS / 2 };
            let read = product::page(&mut conn, &Filter::default(), order, half).await.unwrap();
            let middle = Place::of(read.last().unwrap(), field);
            for backward in [false, true] {
                let (after, before) = if backward { (None, Some(&middle)) } else { (Some(&middle), None) };
                let slice = Slice { after, before, backward, limit: 21 };
                let before = rows_read(&mut conn).await;
                let page = product::page(&mut conn, &Filter::default(), order, slice).await.unwrap();
                let rows = rows_read(&mut conn).await - before;
                assert_eq!(page.len(), 21);
                assert!(
                    rows < 200,
                    "{rows} rows for a page by {field:?}, descending: {descending}, backward: {backward}"
                );
                assert!(rows >= 42, "{rows} rows: they are counted");
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_the_whole_catalogue_is_not_planned_anew() {
    let world = World::new().await;
    let mut conn = world.pool.acquire().await.unwrap();
    fill(&mut conn).await;
    // As on the connections for requests.
    sqlx::query("set plan_cache_mode = auto").execute(&mut *conn).await.unwrap();

    let order = Order { field: Field::Id, descending: false };
    let mut after = None;
    for _ in 0..20 {
        let slice = Slice { after: after.as_ref(), before: None, backward: false, limit: 21 };
        let page = product::page(&mut conn, &Filter::default(), order, slice).await.unwrap();
        assert_eq!(page.len(), 21);
        after = page.last().map(|product| Place::of(product, Field::Id));
    }
    // PostgreSQL plans for the values themselves five times before it takes a plan for any.
    let planned: i64 =
        sqlx::query_scalar("select custom_plans from pg_prepared_statements where statement like 'select id%as page%'")
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    assert_eq!(planned, 5);
}
