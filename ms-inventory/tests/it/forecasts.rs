//! Batches decided on what the last one left: quick where that is true, and never wrong where it is not.

use std::sync::atomic::{AtomicU32, Ordering};

use database::{Bounds, LockWait, Pool};
use ms_inventory::hold::Reserver;
use ms_inventory::stock::Level;

use crate::holds::{TTL, cancel, is_reserved, order, reason, reserve};
use crate::world::{World, eventually};

#[tokio::test]
async fn a_forecast_that_is_too_high_sells_nothing_twice() {
    let world = World::new().await;
    let product = world.product(3).await;
    assert!(is_reserved(&reserve(&world, &[order("A", &[(product, 1)])]).await[0]));

    let elsewhere = Reserver::new(world.connections.clone());
    let sold = elsewhere.reserve(LockWait::Usual, &[order("B", &[(product, 2)])], TTL).await.unwrap();
    assert!(is_reserved(&sold.answers[0]));

    assert_eq!(reason(&reserve(&world, &[order("C", &[(product, 1)])]).await[0]), "Insufficient stock");
    assert_eq!(world.level(product).await, Level { on_hand: 3, reserved: 3 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_forecast_that_is_too_low_rejects_nobody() {
    let world = World::new().await;
    let product = world.product(1).await;
    assert!(is_reserved(&reserve(&world, &[order("A", &[(product, 1)])]).await[0]));
    cancel(&world, &["A"]).await;
    assert!(is_reserved(&reserve(&world, &[order("B", &[(product, 1)])]).await[0]));
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_order_that_another_instance_answered_meanwhile_gets_that_answer() {
    let world = World::new().await;
    let product = world.product(9).await;
    reserve(&world, &[order("A", &[(product, 1)])]).await;
    let elsewhere = Reserver::new(world.connections.clone());
    let absurd = order("B", &[(product, -1)]);
    let there = elsewhere.reserve(LockWait::Usual, std::slice::from_ref(&absurd), TTL).await.unwrap().answers;

    // The stock is as forecast, because B was rejected; only its id tells.
    let here = reserve(&world, &[order("C", &[(product, 1)]), absurd]).await;
    assert!(is_reserved(&here[0]));
    assert_eq!(here[1], there[0]);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_batch_that_finds_what_was_forecast_is_one_statement() {
    let world = World::new().await;
    let product = world.product(100).await;
    let alone = Pool::new(world.database.url().parse().unwrap(), 1, &Bounds::default());
    let reserver = Reserver::new(alone.clone());
    for n in 0..10 {
        let orders = [order(format!("ORD-{n}"), &[(product, 1)])];
        assert!(is_reserved(&reserver.reserve(LockWait::Usual, &orders, TTL).await.unwrap().answers[0]));
    }
    drop(reserver);
    // The first looks before; nobody takes the long way.
    assert_eq!(executions(&alone, "select product_id%").await, 1);
    assert_eq!(executions(&alone, "select product_id%for update").await, 0);
    assert_eq!(executions(&alone, "with decided_on%").await, 10);
}

async fn executions(alone: &Pool, like: &str) -> i64 {
    let sum = "select coalesce(sum(generic_plans + custom_plans), 0)::bigint from pg_prepared_statements where statement like $1";
    sqlx::query_scalar(sum).bind(like).fetch_one(&mut *alone.acquire().await.unwrap()).await.unwrap()
}

/// The plans are made while the tables are empty, and must do when they are full.
#[tokio::test]
async fn a_batch_reads_by_keys_however_the_tables_grow() {
    let world = World::new().await;
    let product = world.product(1_000_000).await;
    sqlx::query("vacuum analyze").execute(&world.pool).await.unwrap();
    let work = database::Database::open(&world.database.url().into(), "test", &Bounds::default()).unwrap().pool;
    let (reserver, batches) = (Reserver::new(work.clone()), AtomicU32::new(0));
    eventually("the statistics tell of a look-up", async || {
        let n = batches.fetch_add(1, Ordering::Relaxed);
        let orders = [order(format!("ORD-{n}"), &[(product, 1)])];
        // Both ways.
        Reserver::new(work.clone()).reserve(LockWait::Usual, &orders, TTL).await.unwrap();
        reserver.reserve(LockWait::Usual, &[order(format!("X-{n}"), &[(product, 1)])], TTL).await.unwrap();
        scans(&world, "idx_scan", "pg_stat_user_indexes where indexrelname = 'holds_pkey'").await > 0
    })
    .await;
    assert_eq!(scans(&world, "idx_scan", "pg_stat_user_indexes where indexrelname = 'holds_by_age'").await, 0);
    assert_eq!(scans(&world, "seq_tup_read", "pg_stat_user_tables where relname = 'holds'").await, 0);
}

async fn scans(world: &World, column: &'static str, of: &'static str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("select {column} from {of}"));
    sqlx::query_scalar(count).fetch_one(&world.pool).await.unwrap()
}
