//! The fill: fetches all products from inventory's API, at each start. The first time it brings those from before our queue
//! existed; later, what a broker that lost its disk took along.
//!
//! It begins when the queue is there. What changes meanwhile arrives by the queue, and the newest version wins, so it
//! does not matter which of the two brings a product first.

use std::time::Duration;

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use database::Pool;
use reqwest::Client;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Change, Product, keep};
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

/// Fills the catalogue as soon as `listening`; tries again until it is done, or `shutdown`. `filled` is cancelled then,
/// or at once where it was filled at an earlier start.
pub async fn run(
    pool: &Pool,
    inventory: &Inventory,
    listening: &CancellationToken,
    filled: &CancellationToken,
    shutdown: &CancellationToken,
) {
    let filling = async {
        let mut pauses = pauses();
        listening.cancelled().await;
        while let Err(error) = fill(pool, inventory, filled).await {
            let pause = pauses.next().unwrap_or(MAX_PAUSE);
            let (error, pause_ms) = (format!("{error:#}"), pause.as_millis());
            tracing::warn!(error, pause_ms, "the catalogue cannot be filled yet");
            tokio::time::sleep(pause).await;
        }
        filled.cancel();
    };
    shutdown.run_until_cancelled(filling).await;
}

/// Fills the catalogue. `filled` is cancelled beforehand where that was done before.
///
/// # Errors
/// When the database or inventory is away; what was fetched so far is kept.
async fn fill(pool: &Pool, inventory: &Inventory, filled: &CancellationToken) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    if sqlx::query_scalar!(r#"select exists (select from catalogue_fill) as "filled!""#)
        .fetch_one(&mut *connection)
        .await?
    {
        filled.cancel();
    }
    drop(connection);
    let client = boot::neighbour::client(inventory.inventory_ca_file.as_ref())?.timeout(PAGE_TIMEOUT).build()?;
    let mut after = None;
    let mut count = 0;
    loop {
        let page =
            page(&client, &inventory.inventory_url, after).await.context("inventory does not give its products")?;
        count += page.edges.len();
        let changes =
            page.edges.into_iter().map(|edge| edge.node.try_into()).collect::<anyhow::Result<Vec<Change>>>()?;
        let mut tx = pool.begin().await?;
        keep(&mut tx, changes).await?;
        tx.commit().await?;
        if !page.page_info.has_next_page {
            break;
        }
        after = Some(page.page_info.end_cursor.context("there is a next page and no cursor to it")?);
    }
    let mut tx = pool.begin().await?;
    sqlx::query!("insert into catalogue_fill default values on conflict do nothing").execute(&mut *tx).await?;
    tx.commit().await?;
    tracing::info!(products.len = count, "the catalogue is filled");
    Ok(())
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

fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(MAX_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
