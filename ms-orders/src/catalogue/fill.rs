//! The fill: fetches all products from inventory's API, at each start and once in a while. The first time it brings those
//! from before our queue existed; later, what a broker that lost its disk took along, deletions as well.
//!
//! A fill begins when the queue is there, so events tell of everything that changes meanwhile. A complete fill
//! [deletes](super::unlisted) the products that it did not list; a fill that ended early deletes nothing.
//!
//! A page is the truth for each of its products that nothing has told of since the fill began, by `told_at`: it replaces the
//! row, whatever the versions are, also a row that is deleted. Otherwise the newer version wins. The reasons:
//!
//! - The database sets `told_at` of an event when its transaction begins, and the event was received by then. So inventory
//!   had committed an event with `told_at` before the fill's beginning before it read any page of the fill. The page is at
//!   least as new as the event, unless inventory was set back (restored from a backup, for example). Then versions in
//!   inventory are lower than the known ones, and the page is right.
//! - An event that is consumed since the fill began may be newer than the page, because it may arrive between the reading
//!   and the storing of the page. Its `told_at` is not before the beginning, so an older page does not replace it.
//! - A page sets `told_at` when it is stored, not to the beginning of its fill. So a page that another instance's fill read
//!   earlier does not replace it, although that fill may have begun later.
//!
//! After inventory was set back, an event with a version that is not above the known one is ignored until the next fill. So
//! is an edit that inventory makes between the reading and the storing of a page if its event arrives there. An event from
//! before the set-back that is consumed after the fill began wins by its version, until the next fill.

use std::time::Duration;

use anyhow::Context;
use backon::{BackoffBuilder, ConstantBuilder};
use chrono::{DateTime, Utc};
use database::{Failures, Pool, WORK_TIMEOUT, bounded};
use reqwest::Client;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Change, Product, unlisted};
use crate::config::Inventory;

const QUERY: &str = "query Catalogue($after: String) {
  products(first: 100, after: $after) {
    edges { node { id sku name price version } }
    pageInfo { hasNextPage endCursor }
  }
}";

/// How long inventory may take for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_PAUSE: Duration = Duration::from_secs(10);

/// How the fills are called in health.
const FILLS: &str = "fills of the catalogue";

/// Fills the catalogue as soon as `listening`, and at least once in each period; tries again until it is done. `filled` is
/// cancelled then, or at once where it was filled at an earlier start. After `shutdown` it finishes the step it is in.
pub async fn run(
    pool: &Pool,
    inventory: &Inventory,
    listening: &CancellationToken,
    filled: &CancellationToken,
    failures: &Failures,
    shutdown: &CancellationToken,
) {
    shutdown.run_until_cancelled(listening.cancelled()).await;
    let period = Duration::from_secs(inventory.catalogue_fill_period_seconds);
    let mut retries = retries();
    while !shutdown.is_cancelled() {
        let pause = match fill(pool, inventory, filled, shutdown).await {
            Ok(()) => {
                retries = self::retries();
                until_next(period)
            }
            Err(error) => {
                let pause = retries.next().unwrap_or(MAX_PAUSE);
                let (error, pause_ms) = (format!("{error:#}"), pause.as_millis());
                tracing::warn!(error, pause_ms, "the catalogue cannot be filled yet");
                failures.failed(FILLS, error);
                pause
            }
        };
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Fills the catalogue, or as much of it as there is time for until `shutdown`. `filled` is cancelled when it is complete, or
/// beforehand where it was filled before.
///
/// # Errors
/// When the database or inventory is away; what was fetched so far is kept.
pub async fn fill(
    pool: &Pool,
    inventory: &Inventory,
    filled: &CancellationToken,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let client = boot::neighbour::client(inventory.inventory_ca_file.as_ref())?.timeout(PAGE_TIMEOUT).build()?;
    let began = step(shutdown, begin(pool, filled)).await?;
    let mut after = None;
    let mut count = 0;
    loop {
        // It only reads, so it may be dropped.
        let page = page(&client, &inventory.inventory_url, after.clone());
        let Some(page) = shutdown.run_until_cancelled(page).await else { return Ok(()) };
        let page = page.context("inventory does not give its products")?;
        count += page.edges.len();
        let products =
            page.edges.into_iter().map(|edge| edge.node.try_into()).collect::<anyhow::Result<Vec<Change>>>()?;
        step(shutdown, take(pool, products, began)).await?;
        if !page.page_info.has_next_page {
            break;
        }
        let next = page.page_info.end_cursor.context("there is a next page and no cursor to it")?;
        anyhow::ensure!(after.as_ref() != Some(&next), "the next page is the same page");
        after = Some(next);
    }
    let Some(deleted) = delete_unlisted(pool, began, shutdown).await? else { return Ok(()) };
    if deleted > 0 {
        tracing::warn!(products.len = deleted, "products that inventory lists no more are sold no more");
    }
    step(shutdown, complete(pool)).await?;
    filled.cancel();
    tracing::info!(products.len = count, "the catalogue is filled");
    Ok(())
}

/// Takes one step in the database.
async fn step<T>(shutdown: &CancellationToken, step: impl Future<Output = sqlx::Result<T>>) -> anyhow::Result<T> {
    Ok(bounded(WORK_TIMEOUT, shutdown, step).await.context("the database takes too long")??)
}

/// Tells from when on the fill counts.
async fn begin(pool: &Pool, filled: &CancellationToken) -> sqlx::Result<DateTime<Utc>> {
    let mut connection = pool.acquire().await?;
    if sqlx::query_scalar!(r#"select exists (select from catalogue_fill) as "filled!""#)
        .fetch_one(&mut *connection)
        .await?
    {
        filled.cancel();
    }
    unlisted::begin(&mut connection).await
}

/// Takes the products of a page over, as the module's documentation says.
async fn take(pool: &Pool, products: Vec<Change>, began: DateTime<Utc>) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    super::store(&mut tx, products, Some(began)).await?;
    tx.commit().await
}

/// Tells how many products are deleted; `None` where `shutdown` came first.
async fn delete_unlisted(
    pool: &Pool,
    began: DateTime<Utc>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<i64>> {
    let (mut after, mut deleted) = (Some(i64::MIN), 0);
    while let Some(last_id) = after {
        if shutdown.is_cancelled() {
            return Ok(None);
        }
        let deleting = async {
            let mut tx = pool.begin().await?;
            let gone = unlisted::delete(&mut tx, last_id, began).await?;
            tx.commit().await?;
            Ok(gone)
        };
        let gone = step(shutdown, deleting).await?;
        deleted += gone.count;
        after = gone.last_id;
    }
    Ok(Some(deleted))
}

async fn complete(pool: &Pool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into catalogue_fill default values
         on conflict (only_row) do update set filled_at = excluded.filled_at",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

async fn page(client: &Client, inventory_url: &str, after: Option<String>) -> anyhow::Result<Products> {
    let url = format!("{}/graphql", inventory_url.trim_end_matches('/'));
    loop {
        let request = client.post(&url).json(&json!({"query": QUERY, "variables": {"after": after}}));
        let response: Response = request.send().await?.error_for_status()?.json().await?;
        match response {
            Response { data: Some(data), errors } if errors.is_empty() => return Ok(data.products),
            Response { errors, .. } => match errors.first() {
                // A large catalogue is more than one client may ask for at once.
                Some(Refusal { extensions: Extensions { retry_after_seconds: Some(seconds) }, .. }) => {
                    tokio::time::sleep(Duration::from_secs(*seconds).min(MAX_PAUSE)).await;
                }
                Some(refusal) => anyhow::bail!("refused: {}", refusal.message),
                None => anyhow::bail!("no data and no error"),
            },
        }
    }
}

#[derive(Deserialize)]
struct Response {
    data: Option<Data>,
    #[serde(default)]
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    retry_after_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Data {
    products: Products,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Products {
    edges: Vec<Edge>,
    page_info: PageInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Edge {
    node: Node,
}

#[derive(Deserialize)]
struct Node {
    /// A number of 64 bits, as text.
    id: String,
    sku: String,
    name: String,
    #[serde(with = "rust_decimal::serde::str")]
    price: Decimal,
    version: i64,
}

impl TryFrom<Node> for Change {
    type Error = anyhow::Error;

    fn try_from(node: Node) -> anyhow::Result<Self> {
        let Node { id, sku, name, price, version } = node;
        let product_id = id.parse().with_context(|| format!("{id:?} is no product id"))?;
        Ok(Self::of(Product { product_id, sku, name, price, version }, false)?)
    }
}

/// Between half of the period and all of it, so that instances that started together do not ask together for ever.
fn until_next(period: Duration) -> Duration {
    let jittered = ConstantBuilder::default().with_delay(period / 2).with_jitter().build().next();
    jittered.unwrap_or(period)
}

fn retries() -> impl Iterator<Item = Duration> + Send {
    database::backoff(Duration::from_millis(200), MAX_PAUSE)
}
