//! A connection in the pool is idle, whatever was dropped at an `await`; and nothing waits without a bound.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::time::Duration;

use database::{Bounds, Pool};
use dev::proxy::Proxy;
use dev::testing::Database;
use futures::future::join_all;
use sqlx::Executor;
use tokio::time::{sleep, timeout};

fn pool(database: &Database, max_connections: usize) -> Pool {
    Pool::new(database.url().parse().unwrap(), max_connections, &Bounds::default())
}

/// The server process behind a connection, and whether it has a transaction open.
async fn state(pool: &Pool) -> (i32, bool) {
    let mut connection = pool.acquire().await.unwrap();
    // A simple query outside a transaction begins one of its own, at the same moment.
    let query = "select pg_backend_pid(), now() < statement_timestamp()";
    let row = (&mut *connection).fetch_one(query).await.unwrap();
    (sqlx::Row::get(&row, 0), sqlx::Row::get(&row, 1))
}

/// Makes the table by which health asks both pools, and returns what it says then: the migrations are not ours.
async fn has_migrations(database: &database::Database) -> Result<(), String> {
    let mut setup = database.pool.begin().await.unwrap();
    setup.execute("create table _sqlx_migrations (success bool)").await.unwrap();
    setup.commit().await.unwrap();
    Err("not migrated yet".to_owned())
}

#[tokio::test]
async fn a_transaction_that_is_dropped_at_any_await_leaves_no_transaction_open() {
    let database = Database::create("connections").unwrap();
    let pool = pool(&database, 1);
    let mut setup = pool.begin().await.unwrap();
    setup.execute("create table written (n int)").await.unwrap();
    setup.commit().await.unwrap();
    // Each number of polls ends the future at another await: while it waits for a connection, for BEGIN, for the statement,
    // or for COMMIT.
    for polls in 1..40_u32 {
        let mut unit = Box::pin(async {
            let mut transaction = pool.begin().await.unwrap();
            transaction.execute("insert into written values (1)").await.unwrap();
            sleep(Duration::from_millis(1)).await;
            transaction.execute("select 1").await.unwrap();
            transaction.commit().await.unwrap();
        });
        let mut finished = false;
        for _ in 0..polls {
            if futures::poll!(unit.as_mut()).is_ready() {
                finished = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        if !finished {
            drop(unit);
        }
        let (_, in_transaction) = state(&pool).await;
        assert!(!in_transaction, "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn a_connection_that_is_dropped_in_the_middle_of_a_statement_is_closed() {
    let database = Database::create("connections").unwrap();
    let pool = pool(&database, 1);
    let (before, _) = state(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    timeout(Duration::from_millis(50), connection.execute("select pg_sleep(60)")).await.unwrap_err();
    drop(connection);
    let (after, _) = timeout(Duration::from_secs(5), state(&pool)).await.expect("the next user waits for nobody");
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_connection_goes_back_to_the_pool_after_use_after_a_refusal_and_after_an_error() {
    let database = Database::create("connections").unwrap();
    let pool = pool(&database, 1);
    let (first, _) = state(&pool).await;
    pool.begin().await.unwrap().commit().await.unwrap();
    pool.begin().await.unwrap().rollback().await;
    drop(pool.begin().await.unwrap());
    assert_eq!(state(&pool).await, (first, false));
    let mut failing = pool.begin().await.unwrap();
    failing.execute("select 1 / 0").await.unwrap_err();
    failing.rollback().await;
    assert_eq!(state(&pool).await, (first, false));
}

#[tokio::test]
async fn connections_to_a_server_that_became_read_only_are_replaced() {
    let database = Database::create("connections").unwrap();
    let pool = pool(&database, 2);
    let name = database.name();
    let set =
        |value: &str| sqlx::AssertSqlSafe(format!("alter database {name} set default_transaction_read_only = {value}"));
    sqlx::raw_sql(set("on")).execute(&mut *pool.acquire().await.unwrap()).await.unwrap();
    // Made while the database was read-only, and so for good.
    let (one, other) = (self::pool(&database, 2), self::pool(&database, 2));
    for pool in [&one, &other] {
        let (first, second) = tokio::join!(pool.acquire(), pool.acquire());
        drop((first.unwrap(), second.unwrap()));
        let refused = pool.begin().await.unwrap().execute("create table if not exists t (n int)").await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "25006");
    }
    sqlx::raw_sql(set("off")).execute(&mut *pool.acquire().await.unwrap()).await.unwrap();
    for pool in [&one, &other] {
        let write = async || pool.begin().await?.execute("create table if not exists t (n int)").await;
        // At most the one transaction that finds it out.
        if write().await.is_err() {
            sleep(Duration::from_millis(500)).await;
            write().await.expect("a new connection writes");
        }
    }
}

#[tokio::test]
async fn a_lock_that_nobody_gives_up_is_not_waited_for_without_a_bound() {
    let database = Database::create("connections").unwrap();
    let bounds = Bounds { database_lock_timeout_seconds: 1, ..Bounds::default() };
    let pool = database::Database::open(&database.url().into(), "test", &bounds).unwrap().requests;
    let (mut holder, mut waiter) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    holder.execute("select pg_advisory_xact_lock(1)").await.unwrap();
    let waiting = waiter.execute("select pg_advisory_xact_lock(1)");
    let refused = timeout(Duration::from_secs(8), waiting).await.expect("it gives up").unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "55P03");
}

#[tokio::test]
async fn a_transaction_whose_client_went_silent_gives_its_locks_up() {
    let database = Database::create("connections").unwrap();
    let bounds = Bounds { database_idle_in_transaction_timeout_seconds: 1, ..Bounds::default() };
    let pool = database::Database::open(&database.url().into(), "test", &bounds).unwrap().requests;
    let mut silent = pool.begin().await.unwrap();
    silent.execute("select pg_advisory_xact_lock(1)").await.unwrap();
    let mut next = pool.begin().await.unwrap();
    let locking = next.execute("select pg_advisory_xact_lock(1)");
    timeout(Duration::from_secs(8), locking).await.expect("the lock is free").unwrap();
}

/// New connections work. There is no other user who would find out that the old ones do not.
#[tokio::test]
async fn health_meets_one_silent_connection_and_not_one_after_the_other() {
    let database = Database::create("connections").unwrap();
    let proxy = Proxy::start_for(database.url()).unwrap();
    let url = proxy.in_front_of(database.url());
    let opened = database::Database::open(&url.into(), "test", &Bounds::default()).unwrap();
    let not_migrated = has_migrations(&opened).await;
    drop(join_all((0..10).map(|_| opened.requests.acquire())).await);
    assert_eq!(proxy.silence_established(), 11);
    // One that was used a moment ago is not tested.
    sleep(Duration::from_millis(200)).await;
    // On a slow machine it takes this one to find out.
    opened.check().await.ok();
    assert_eq!(opened.check().await, not_migrated);
}

#[tokio::test]
async fn health_does_not_take_a_busy_pool_for_a_dead_one() {
    let database = Database::create("connections").unwrap();
    let bounds = Bounds { database_max_connections: 1, ..Bounds::default() };
    let opened = database::Database::open(&database.url().into(), "test", &bounds).unwrap();
    let not_migrated = has_migrations(&opened).await;
    assert_eq!(opened.check().await, not_migrated);
    let held = opened.requests.acquire().await.unwrap();
    assert_eq!(opened.check().await, Err(sqlx::Error::PoolTimedOut.to_string()), "nobody gave one back");
    drop(held);
    assert_eq!(opened.check().await, not_migrated);
}
