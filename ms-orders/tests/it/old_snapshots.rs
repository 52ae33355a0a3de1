//! Work in the background while some transaction keeps an old snapshot open, as a dump of the database does.

use dev::testing::Vhost;

use crate::world::{World, eventually};

/// How often an index was read, and how many blocks of it and of its table.
async fn read(world: &World, index: &str) -> (i64, i64) {
    sqlx::query_as(
        "select idx_scan, (of_index.idx_blks_hit + of_index.idx_blks_read + heap_blks_hit + heap_blks_read)::bigint
         from pg_stat_user_indexes as scans
         join pg_statio_user_indexes as of_index using (indexrelid)
         join pg_statio_user_tables as of_table on of_table.relid = scans.relid
         where scans.indexrelname = $1",
    )
    .bind(index)
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

/// Looks for due payments and overdue orders go on from where they were, and do not walk over what is done again and again.
#[tokio::test]
async fn what_is_done_costs_the_looks_after_it_nothing_while_a_dump_runs() {
    const DONE: i64 = 50_000;
    const LOOKS: i64 = 100;
    const BLOCKS_PER_LOOK: i64 = 100;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let mut dump = world.pool.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *dump).await.unwrap();
    sqlx::query("select count(*) from orders").execute(&mut *dump).await.unwrap();
    for statement in [
        "insert into orders (id, subtotal, fee, total, overdue_at)
         select 'ORD-' || n, 1, 0, 1, now() - interval '1 hour' from generate_series(1, $1) as n",
        "insert into payments (order_id, amount, next_attempt_at)
         select 'ORD-' || n, 1, now() - interval '1 hour' from generate_series(1, $1) as n",
        "update orders set status = 'completed', overdue_at = null where $1 > 0",
        "update payments set status = 'paid', next_attempt_at = null where $1 > 0",
    ] {
        sqlx::query(statement).bind(DONE).execute(&world.pool).await.unwrap();
    }
    let instance = world.start_without_broker(&vhost, &["--payment-period-ms", "20", "--reask-period-ms", "20"]).await;
    for index in ["payments_open", "orders_overdue"] {
        let looked = async |from: i64, times: i64| {
            eventually("it looks", async || read(&world, index).await.0 >= from + times).await;
            read(&world, index).await
        };
        let (from, blocks) = looked(0, 1).await;
        let (to, more_blocks) = looked(from, LOOKS).await;
        let per_look = (more_blocks - blocks) / (to - from);
        assert!(per_look < BLOCKS_PER_LOOK, "{per_look} blocks for each look at {index}, after {DONE} that are done");
    }
    dump.rollback().await.unwrap();
    instance.stop().await;
}
