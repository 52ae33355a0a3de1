//! Services end, in order or not, and come back.

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::PgConnection;

use crate::load::Load;
use crate::service::DEADLINE;
use crate::shop::{Shop, text};

/// Orders are not asked for again in these tests: what was lost stays lost, and is seen.
const NO_SECOND_QUESTION: (&str, &str) = ("REASK_AFTER_SECONDS", "86400");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_either_service_under_load_again_and_again_loses_nothing() {
    const KILLS: usize = 16;
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let (plenty, scarce) = (shop.product("1.00", 1_000_000).await, shop.product("1.00", 100).await);
    let products = [plenty.as_str(), scarce.as_str()];
    let load = Load::begin(&shop.orders, &products);
    load.goes_on(1).await;
    for kill in 0..KILLS {
        let victim = if kill % 2 == 0 { &mut shop.inventory } else { &mut shop.orders };
        victim.kill9();
        victim.start().await;
        load.goes_on(5).await;
    }
    let ids = load.end().await;
    let confirmed = shop.assert_nothing_lost(&ids, &products).await;
    assert!(0 < confirmed && confirmed < ids.len(), "some are confirmed and some are not: {confirmed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_under_load_is_clean_and_loses_nothing() {
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let product = shop.product("1.00", 1_000_000).await;
    let load = Load::begin(&shop.orders, &[&product]);
    for _ in 0..2 {
        load.goes_on(5).await;
        shop.inventory.stop().await;
        load.goes_on(5).await;
        shop.inventory.start().await;
        load.goes_on(5).await;
        shop.orders.stop().await;
        shop.orders.start().await;
    }
    let ids = load.end().await;
    let confirmed = shop.assert_nothing_lost(&ids, &[&product]).await;
    assert_eq!(confirmed, ids.len());
}

/// A batch is cut off 2 s after the service was told to stop, and then comes back. A busy machine may not let this test be as
/// fast: it tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_finished_before_the_end_and_meanwhile_it_is_not_ready() {
    const TRIES: usize = 20;
    const CUT_OFF_AFTER: Duration = Duration::from_secs(2);
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION]).await;
    let product = shop.product("1.00", 10).await;
    for _ in 0..TRIES {
        let mut stock = StockLock::take(shop.inventory_database.url()).await;
        let id = text(&shop.place(&product, 1).await["id"]);
        stock.wait_for_company().await;

        let told = Instant::now();
        let ended = shop.inventory.terminate();
        let draining =
            async || shop.inventory.get("/health").await.is_some_and(|(_, body)| body.contains(r#""draining":true"#));
        while !draining().await && told.elapsed() < CUT_OFF_AFTER {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut states = Vec::new();
        for path in ["/health/live", "/health/ready", "/health"] {
            states.push(shop.inventory.get(path).await.map(|(status, _)| status.as_u16()));
        }
        let is_waiting = !ended.is_finished();
        stock.release().await;
        let ended = ended.await.unwrap();
        if told.elapsed() < CUT_OFF_AFTER {
            assert_eq!(states, [Some(200), Some(503), Some(503)]);
            assert!(is_waiting, "it waits for the transaction");
            assert!(ended.success());
            shop.order_once(&id, "CONFIRMED").await;
            return;
        }
        shop.inventory.start().await;
    }
    panic!("the machine is too slow");
}

/// A batch may take 2 s once the service is to stop, so that it ends with 0 unless it is cut off before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_is_cut_off_and_the_next_instance_finishes() {
    let mut shop = Shop::open_with(&[NO_SECOND_QUESTION, ("DRAIN_TIMEOUT_SECONDS", "1")]).await;
    let product = shop.product("1.00", 10).await;
    let mut stock = StockLock::take(shop.inventory_database.url()).await;
    let id = text(&shop.place(&product, 1).await["id"]);
    stock.wait_for_company().await;

    let ended = shop.inventory.terminate().await.unwrap();
    assert_eq!(ended.code(), Some(1));
    assert_eq!(shop.order(&id).await["status"], "PENDING");
    stock.release().await;
    shop.inventory.start().await;
    shop.order_once(&id, "CONFIRMED").await;
    assert_eq!(shop.assert_nothing_lost(&[id], &[&product]).await, 1);
}

/// A transaction that keeps everyone else from reserving.
struct StockLock {
    holder: PgConnection,
    watcher: PgConnection,
}

impl StockLock {
    async fn take(database_url: &str) -> Self {
        let mut holder = PgConnection::connect(database_url).await.unwrap();
        sqlx::raw_sql("begin; lock table stock in access exclusive mode").execute(&mut holder).await.unwrap();
        Self { holder, watcher: PgConnection::connect(database_url).await.unwrap() }
    }

    /// Waits until somebody waits for it.
    async fn wait_for_company(&mut self) {
        let waiting = "select exists (
            select from pg_locks
            where not granted and database = (select oid from pg_database where datname = current_database())
        )";
        let begun = Instant::now();
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut self.watcher).await.unwrap() {
            assert!(begun.elapsed() < DEADLINE, "nobody wants to reserve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn release(&mut self) {
        sqlx::raw_sql("rollback").execute(&mut self.holder).await.unwrap();
    }
}
