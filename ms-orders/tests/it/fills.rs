//! The fill of the catalogue from inventory's API: what it brings, what it takes away, and what it leaves alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_graphql::connection::Connection;
use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema, SimpleObject};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use dev::testing::Vhost;
use futures::future::BoxFuture;
use graphql::page::{Cursor, Page, PageSize};
use graphql::{Id, Limits};
use ms_orders::catalogue::fill::fill;
use ms_orders::catalogue::{Change, Product, keep, sold};
use ms_orders::config::Inventory;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::{Instance, World, changed, deleted, eventually};

/// As much of inventory's API as a fill reads, on a real HTTP server. The pages are read as inventory reads them: each by
/// itself, by id, after the last id of the page before.
#[derive(Clone, Default)]
pub(crate) struct Listing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The versions of the products, by their ids.
    products: Mutex<BTreeMap<i64, i64>>,
    requests: AtomicUsize,
    before_page: Mutex<Option<Arc<Hook>>>,
    after_page: Mutex<Option<Arc<Hook>>>,
}

/// Called before a page is read, or between its reading and its answer, with the number of the request: 1 is the first. Its
/// error is the answer.
type Hook = dyn Fn(usize) -> BoxFuture<'static, Result<(), StatusCode>> + Send + Sync;

impl Listing {
    pub(crate) fn of(ids: impl IntoIterator<Item = i64>) -> Self {
        let listing = Self::default();
        listing.products().extend(ids.into_iter().map(|id| (id, 5)));
        listing
    }

    fn products(&self) -> MutexGuard<'_, BTreeMap<i64, i64>> {
        self.0.products.lock().unwrap()
    }

    fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    fn before_page(&self, call: impl Fn(usize) -> BoxFuture<'static, Result<(), StatusCode>> + Send + Sync + 'static) {
        *self.0.before_page.lock().unwrap() = Some(Arc::new(call));
    }

    fn after_page(&self, call: impl Fn(usize) -> BoxFuture<'static, Result<(), StatusCode>> + Send + Sync + 'static) {
        *self.0.after_page.lock().unwrap() = Some(Arc::new(call));
    }

    /// Serves it until the test ends, and returns where.
    pub(crate) async fn serve(&self) -> String {
        let of_requests = self.clone();
        let counted = from_fn(move |request: axum::extract::Request, next: Next| {
            let number = of_requests.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
            let before_page = of_requests.0.before_page.lock().unwrap().clone();
            let after_page = of_requests.0.after_page.lock().unwrap().clone();
            async move {
                if let Some(before_page) = before_page
                    && let Err(status) = before_page(number).await
                {
                    return status.into_response();
                }
                let page = next.run(request).await;
                if let Some(after_page) = after_page
                    && let Err(status) = after_page(number).await
                {
                    return status.into_response();
                }
                page
            }
        });
        let schema = Schema::build(Query(self.clone()), EmptyMutation, EmptySubscription);
        let router = graphql::router(schema, Limits::default()).layer(counted);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

struct Query(Listing);

#[derive(SimpleObject)]
struct Node {
    id: Id,
    sku: String,
    name: String,
    price: Decimal,
    version: i64,
}

#[Object]
impl Query {
    async fn products(
        &self,
        first: Option<i32>,
        after: Option<String>,
    ) -> async_graphql::Result<Connection<Cursor<i64>, Node>> {
        let page = Page::<i64>::parse(first, after, None, None, PageSize::default())?;
        let from = page.after.map_or(0, |after| after + 1);
        let rows: Vec<(i64, i64)> =
            self.0.products().range(from..).take(page.fetch() as usize).map(|(id, version)| (*id, *version)).collect();
        let node = |(id, version)| Node {
            id: Id(id),
            sku: format!("S{id}"),
            name: "N".into(),
            price: Decimal::new(id, 2),
            version,
        };
        Ok(page.connection(rows, |(id, _)| *id, node))
    }
}

fn inventory(inventory_url: String) -> Inventory {
    Inventory { inventory_url, inventory_ca_file: None, catalogue_fill_period_seconds: 86_400 }
}

async fn is_filled(instance: &Instance) -> bool {
    instance.health().await["dependencies"]["catalogue"]["status"] == "up"
}

/// Which of the products are sold.
async fn sold_of(world: &World, ids: &[i64]) -> Vec<i64> {
    let known = sold(&mut world.pool.acquire().await.unwrap(), ids).await.unwrap();
    ids.iter().copied().filter(|id| known.contains_key(id)).collect()
}

#[tokio::test]
async fn the_catalogue_is_filled_from_inventory_at_each_start_and_what_is_newer_stays() {
    let listing = Listing::of(1..=250);
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let pool = world.pool.clone();
    listing.before_page(move |number| {
        let pool = pool.clone();
        Box::pin(async move {
            match number {
                // The first request meets an inventory that is not well yet.
                1 => return Err(StatusCode::SERVICE_UNAVAILABLE),
                2 => {
                    let newer = [changed(1, 6, "77"), deleted(2, 6)];
                    keep(&mut pool.acquire().await.unwrap(), newer).await.unwrap();
                }
                _ => (),
            }
            Ok(())
        })
    });
    let url = listing.serve().await;
    let mut conn = world.pool.acquire().await.unwrap();
    keep(&mut conn, [changed(3, 4, "77")]).await.unwrap();
    let instance = world.start(&vhost, &["--inventory-url", &url]).await;
    eventually("the catalogue is filled", async || is_filled(&instance).await).await;
    assert_eq!(listing.requests(), 4, "one that failed, and three pages");

    let all: Vec<i64> = (1..=251).collect();
    let known = sold(&mut conn, &all).await.unwrap();
    assert_eq!(known.len(), 249);
    let price = |id| known.get(&id).map(|product| product.price.to_string());
    assert_eq!((price(1), price(2), price(3)), (Some("77.00".into()), None, Some("0.03".into())));
    assert_eq!(price(250).unwrap(), "2.50");

    // As after a broker has lost its disk, and an edit with it.
    sqlx::query("update catalogue set price = 9.99, version = 0 where product_id = 250")
        .execute(&world.pool)
        .await
        .unwrap();
    instance.stop().await;
    let instance = world.start(&vhost, &["--inventory-url", &url]).await;
    eventually("the next start brings what was missed", async || {
        let known = sold(&mut world.pool.acquire().await.unwrap(), &[250]).await.unwrap();
        known[&250].price.to_string() == "2.50"
    })
    .await;
    instance.stop().await;
}

/// As after a broker has lost a ProductDeleted.
#[tokio::test]
async fn a_product_that_inventory_lists_no_more_is_sold_no_more() {
    let url = Listing::of(1..=250).serve().await;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let gone = [251, 120_000, 999_999];
    keep(&mut world.pool.acquire().await.unwrap(), gone.map(|id| changed(id, 4, "1"))).await.unwrap();
    assert_eq!(sold_of(&world, &gone).await, gone);
    let instance = world.start(&vhost, &["--inventory-url", &url]).await;
    eventually("the catalogue is filled", async || is_filled(&instance).await).await;
    assert_eq!(sold_of(&world, &gone).await, [0; 0]);
    assert_eq!(sold_of(&world, &[1, 100, 101, 250]).await, [1, 100, 101, 250]);
    instance.stop().await;
}

#[tokio::test]
async fn a_lost_deletion_is_noticed_while_the_service_runs() {
    let listing = Listing::of(1..=3);
    let url = listing.serve().await;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let instance = world.start(&vhost, &["--inventory-url", &url, "--catalogue-fill-period-seconds", "1"]).await;
    eventually("the catalogue is filled", async || sold_of(&world, &[1, 2, 3]).await == [1, 2, 3]).await;
    listing.products().remove(&2);
    eventually("it is noticed", async || sold_of(&world, &[1, 2, 3]).await == [1, 3]).await;
    instance.stop().await;
}

#[tokio::test]
async fn a_fill_that_ends_early_deletes_nothing() {
    let listing = Listing::of(1..=250);
    let inventory = inventory(listing.serve().await);
    let world = World::new().await;
    keep(&mut world.pool.acquire().await.unwrap(), [changed(50, 1, "1"), changed(999, 1, "1")]).await.unwrap();
    listing.products().remove(&50);
    let (filled, shutdown) = (CancellationToken::new(), CancellationToken::new());

    listing
        .before_page(|number| Box::pin(async move { if number == 3 { Err(StatusCode::BAD_GATEWAY) } else { Ok(()) } }));
    fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap_err();
    assert_eq!(listing.requests(), 3);
    assert_eq!(sold_of(&world, &[50, 200, 999]).await, [50, 200, 999]);

    let (stopped, token) = (CancellationToken::new(), shutdown.child_token());
    let stopping = token.clone();
    listing.before_page(move |number| {
        let stopping = stopping.clone();
        Box::pin(async move {
            if number == 5 {
                stopping.cancel();
            }
            Ok(())
        })
    });
    fill(&world.connections, &inventory, &stopped, &token).await.unwrap();
    assert_eq!(sold_of(&world, &[50, 200, 999]).await, [50, 200, 999]);
    assert!(!filled.is_cancelled() && !stopped.is_cancelled(), "it is not complete");

    fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
    assert_eq!(sold_of(&world, &[50, 200, 999]).await, [200]);
    assert!(filled.is_cancelled());
}

/// Asked somewhere else, it deletes everything; asked where it belongs, it brings everything back.
#[tokio::test]
async fn what_was_deleted_by_mistake_is_sold_again_and_what_was_deleted_by_its_event_is_not() {
    let listing = Listing::of(1..=2);
    let (right, wrong) = (inventory(listing.serve().await), inventory(Listing::default().serve().await));
    let world = World::new().await;
    keep(&mut world.pool.acquire().await.unwrap(), [deleted(3, 6)]).await.unwrap();
    let (filled, shutdown) = (CancellationToken::new(), CancellationToken::new());
    for (inventory, expected) in [(&right, vec![1, 2]), (&wrong, vec![]), (&right, vec![1, 2])] {
        fill(&world.connections, inventory, &filled, &shutdown).await.unwrap();
        assert_eq!(sold_of(&world, &[1, 2, 3]).await, expected);
    }
    keep(&mut world.pool.acquire().await.unwrap(), [changed(2, 6, "1")]).await.unwrap();
    fill(&world.connections, &wrong, &filled, &shutdown).await.unwrap();
    keep(&mut world.pool.acquire().await.unwrap(), [changed(2, 7, "1")]).await.unwrap();
    assert_eq!(sold_of(&world, &[1, 2, 3]).await, [2], "an event is newer than a deletion by a fill");
}

/// Its database was restored from a backup: versions and deletions that were told are not so any more.
#[tokio::test]
async fn what_inventory_lists_after_it_was_set_back_is_sold_at_its_price() {
    let inventory = inventory(Listing::of([500, 600]).serve().await);
    let world = World::new().await;
    let mut conn = world.pool.acquire().await.unwrap();
    keep(&mut conn, [changed(500, 9, "9"), deleted(600, 9), changed(700, 9, "9")]).await.unwrap();
    fill(&world.connections, &inventory, &CancellationToken::new(), &CancellationToken::new()).await.unwrap();
    let known = sold(&mut conn, &[500, 600, 700]).await.unwrap();
    assert_eq!(known.len(), 2, "{known:?}");
    for (id, price) in [(500, "5.00"), (600, "6.00")] {
        let Product { sku, name, price: charged, version, .. } = &known[&id];
        assert_eq!((sku.as_str(), name.as_str(), *version), (format!("S{id}").as_str(), "N", 5));
        assert_eq!(charged.to_string(), price);
    }
    keep(&mut conn, [changed(500, 6, "7")]).await.unwrap();
    assert_eq!(sold(&mut conn, &[500]).await.unwrap()[&500].price.to_string(), "7.00", "its next edit");
}

#[tokio::test]
async fn what_an_event_tells_between_the_reading_of_a_page_and_its_storing_stays() {
    let listing = Listing::of(1..=3);
    let inventory = inventory(listing.serve().await);
    let world = World::new().await;
    keep(&mut world.pool.acquire().await.unwrap(), [changed(1, 5, "1"), changed(2, 5, "1")]).await.unwrap();
    let pool = world.pool.clone();
    listing.after_page(move |_| {
        let pool = pool.clone();
        Box::pin(async move {
            let newer = [changed(1, 6, "77"), deleted(2, 6), changed(3, 6, "77")];
            keep(&mut pool.acquire().await.unwrap(), newer).await.unwrap();
            Ok(())
        })
    });
    fill(&world.connections, &inventory, &CancellationToken::new(), &CancellationToken::new()).await.unwrap();
    let known = sold(&mut world.pool.acquire().await.unwrap(), &[1, 2, 3]).await.unwrap();
    let price = |id| known.get(&id).map(|product| product.price.to_string());
    assert_eq!((price(1), price(2), price(3)), (Some("77.00".into()), None, Some("77.00".into())));
}

/// The event of an edit brings nothing new where another instance's fill has listed the edit already.
#[tokio::test]
async fn an_older_page_of_a_fill_that_began_later_overwrites_nothing() {
    let listing = Listing::of([1]);
    let inventory = inventory(listing.serve().await);
    let world = World::new().await;
    keep(&mut world.pool.acquire().await.unwrap(), [changed(1, 5, "1")]).await.unwrap();
    let (edited, stored) = (CancellationToken::new(), CancellationToken::new());
    let awaited = edited.clone();
    listing.before_page(move |number| {
        let edited = awaited.clone();
        Box::pin(async move {
            if number == 1 {
                edited.cancelled().await;
            }
            Ok(())
        })
    });
    let (of_page, awaited) = (listing.clone(), stored.clone());
    listing.after_page(move |number| {
        let (listing, edited, stored) = (of_page.clone(), edited.clone(), awaited.clone());
        Box::pin(async move {
            if number == 2 {
                listing.products().insert(1, 6);
                edited.cancel();
                stored.cancelled().await;
            }
            Ok(())
        })
    });
    let fill = async || {
        fill(&world.connections, &inventory, &CancellationToken::new(), &CancellationToken::new()).await.unwrap();
    };
    let first = async {
        fill().await;
        keep(&mut world.pool.acquire().await.unwrap(), [changed(1, 6, "1")]).await.unwrap();
        stored.cancel();
    };
    let second = async {
        eventually("the first fill asks for its page", async || listing.requests() == 1).await;
        fill().await;
    };
    tokio::join!(first, second);
    assert_eq!(sold(&mut world.pool.acquire().await.unwrap(), &[1]).await.unwrap()[&1].version, 6);
}

/// It counts from the beginning of its transaction, which was before that of the fill.
#[tokio::test]
async fn an_event_that_is_stored_late_does_not_have_its_product_deleted() {
    let listing = Listing::of(1..=250);
    let inventory = inventory(listing.serve().await);
    let world = World::new().await;
    let (filled, shutdown) = (CancellationToken::new(), CancellationToken::new());
    fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
    let first_fill = listing.requests();
    let late = Arc::new(tokio::sync::Mutex::new(Some(world.pool.begin().await.unwrap())));
    listing.before_page(move |number| {
        let late = late.clone();
        Box::pin(async move {
            // The first page, with the product, is stored by then.
            if number == first_fill + 3 {
                let mut tx = late.lock().await.take().unwrap();
                keep(&mut tx, [changed(1, 6, "77")]).await.unwrap();
                tx.commit().await.unwrap();
            }
            Ok(())
        })
    });
    fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
    let known = sold(&mut world.pool.acquire().await.unwrap(), &[1]).await.unwrap();
    assert_eq!(known[&1].price.to_string(), "77.00");
}

#[tokio::test]
async fn a_page_that_is_being_stored_when_the_service_stops_is_stored() {
    let listing = Listing::of(1..=250);
    let url = listing.serve().await;
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    keep(&mut world.pool.acquire().await.unwrap(), [changed(1, 1, "1")]).await.unwrap();
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("select from catalogue for update").execute(&mut *lock).await.unwrap();
    let instance = world.start(&vhost, &["--inventory-url", &url]).await;
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the page waits for the lock", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() == 1
    })
    .await;
    let stopping = tokio::spawn(instance.stop());
    // Time for it to be dropped, if that is what happens: the lock would have nobody waiting for it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    lock.rollback().await.unwrap();
    stopping.await.unwrap();
    assert_eq!(sold_of(&world, &[1, 100, 101]).await, [1, 100], "the page in hand, and no other");
    assert_eq!(listing.requests(), 1);
}

/// What inventory has, and what it has told and is still on its way.
#[derive(Default)]
struct Model {
    living: BTreeMap<i64, i64>,
    used: BTreeSet<i64>,
    late: Vec<Change>,
    /// The newest versions whose events came at once.
    told: BTreeMap<i64, i64>,
}

/// Something that is done in inventory: what, to which product, and whether its event comes at once, later or never.
type Edit = (u8, i64, u8);

impl Model {
    /// Does it, and returns the event if it comes at once. Ids are taken before they are committed, so a new one may be
    /// smaller than others.
    fn edit(&mut self, (what, pick, fate): Edit) -> Option<Change> {
        let (id, version, event) = if what == 0 {
            let id = pick;
            if !self.used.insert(id) {
                return None;
            }
            self.living.insert(id, 1);
            (id, 1, changed(id, 1, "1"))
        } else {
            let id = *self.living.range(pick..).next()?.0;
            let version = self.living[&id] + 1;
            if what == 1 {
                self.living.insert(id, version);
                (id, version, changed(id, version, "1"))
            } else {
                self.living.remove(&id);
                (id, version, deleted(id, version))
            }
        };
        match fate {
            0 => {
                self.told.insert(id, version);
                return Some(event);
            }
            1 => self.late.push(event),
            _ => (),
        }
        None
    }
}

/// Products are created, edited and deleted while the pages are read and stored, and events are late or lost. In the end
/// inventory is set back to its beginning.
#[tokio::test]
async fn a_fill_deletes_nothing_that_is_sold_whatever_happens_meanwhile() {
    let mut runner = TestRunner::default();
    let edits = prop::collection::vec(prop::collection::vec((0..3_u8, 0..500_i64, 0..3_u8), 0..40), 12);
    let world = World::new().await;
    for _ in 0..30 {
        let edits: Vec<Vec<Edit>> = edits.new_tree(&mut runner).unwrap().current();
        let listing = Listing::default();
        let model = Arc::new(Mutex::new(Model::default()));
        sqlx::query("delete from catalogue").execute(&world.pool).await.unwrap();
        let keep_all = async |pool: &PgPool, events: Vec<Change>| {
            keep(&mut pool.acquire().await.unwrap(), events).await.unwrap();
        };
        // Every second id is free for those who come later.
        let first: Vec<Change> = (0..250).filter_map(|n| model.lock().unwrap().edit((0, 2 * n, 0))).collect();
        keep_all(&world.pool, first).await;
        let backup = model.lock().unwrap().living.clone();
        *listing.products() = backup.clone();

        let (of_page, shared, pool, script) = (listing.clone(), model.clone(), world.pool.clone(), edits.clone());
        let steps = AtomicUsize::new(0);
        let edit: Arc<Hook> = Arc::new(move |_| {
            let (listing, model, pool) = (of_page.clone(), shared.clone(), pool.clone());
            let edits = script[steps.fetch_add(1, Ordering::SeqCst) % script.len()].clone();
            Box::pin(async move {
                let events = {
                    let mut model = model.lock().unwrap();
                    let mut events: Vec<Change> = edits.into_iter().filter_map(|edit| model.edit(edit)).collect();
                    // One of those that were late.
                    events.extend(model.late.pop());
                    *listing.products() = model.living.clone();
                    events
                };
                keep(&mut pool.acquire().await.unwrap(), events).await.unwrap();
                Ok(())
            })
        });
        *listing.0.before_page.lock().unwrap() = Some(edit.clone());
        *listing.0.after_page.lock().unwrap() = Some(edit);
        let inventory = inventory(listing.serve().await);
        let (filled, shutdown) = (CancellationToken::new(), CancellationToken::new());
        for _ in 0..2 {
            fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
            let gone: Vec<i64> = sqlx::query_scalar("select product_id from catalogue where deleted")
                .fetch_all(&world.pool)
                .await
                .unwrap();
            let living = model.lock().unwrap().living.clone();
            let wrong: Vec<i64> = gone.into_iter().filter(|id| living.contains_key(id)).collect();
            assert_eq!(wrong, [0; 0], "they are sold in inventory: {edits:?}");
            let known: BTreeMap<i64, i64> = versions(&world, "true").await;
            let told = model.lock().unwrap().told.clone();
            let overwritten: Vec<_> = told.into_iter().filter(|(id, version)| known[id] < *version).collect();
            assert_eq!(overwritten, [(0, 0); 0], "an older page overwrote an event: {edits:?}");
        }
        // Now all is quiet.
        *listing.0.before_page.lock().unwrap() = None;
        *listing.0.after_page.lock().unwrap() = None;
        let late = std::mem::take(&mut model.lock().unwrap().late);
        keep_all(&world.pool, late).await;
        fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
        assert_eq!(versions(&world, "not deleted").await, model.lock().unwrap().living, "{edits:?}");

        *listing.products() = backup.clone();
        fill(&world.connections, &inventory, &filled, &shutdown).await.unwrap();
        assert_eq!(versions(&world, "not deleted").await, backup, "{edits:?}");
    }
}

async fn versions(world: &World, condition: &'static str) -> BTreeMap<i64, i64> {
    let query = format!("select product_id, version from catalogue where {condition}");
    sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(&world.pool).await.unwrap().into_iter().collect()
}
