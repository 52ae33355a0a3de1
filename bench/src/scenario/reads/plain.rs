//! The same page without GraphQL: the same statement on the same pool behind axum, and nothing else.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use async_graphql::connection::{CursorType, OpaqueCursor};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use boot::config::SecretString;
use database::Pool;
use database::{Bounds, Database};
use dev::ports;
use dev::process::{Farewell, Process};
use ms_inventory::product::{self, Field, Filter, Order, Place, Slice};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::core::held_to_one_core;
use crate::ground::{Ground, built};

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running peer.
pub(super) struct Peer {
    /// Where it is asked.
    pub(super) url: String,
    /// Killed when dropped.
    pub(super) process: Process,
}

impl Peer {
    /// Starts a peer on a port and one core, and waits until it listens.
    pub(super) fn spawn(ground: &Ground, name: &str, port: u16, path: &str, command: Command) -> Result<Self> {
        let spawn = || Process::spawn(ground.dir(), name, command, Farewell::COMMAND);
        let mut process = held_to_one_core(spawn)?;
        process.wait_ready(PATIENCE, || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/{path}"), process })
    }
}

/// Starts it.
pub(super) fn start(ground: &Ground, database_url: &str) -> Result<Peer> {
    let port = ports::any()?;
    let mut command = Command::new(built("bench")?);
    command.args(["plain", &port.to_string(), database_url]);
    Peer::spawn(ground, "plain", port, "products", command)
}

/// Serves pages until killed.
pub async fn serve(port: u16, database_url: String) -> Result<()> {
    let database = Database::open(&SecretString::from(database_url), "plain", &Bounds::default())?;
    let router = Router::new().route("/products", post(products)).with_state(database.requests);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, router).await.context("cannot serve")
}

/// Reads what the GraphQL request reads, and leaves its `query` where it is.
#[derive(Deserialize)]
struct Request {
    variables: Variables,
}

#[derive(Deserialize)]
struct Variables {
    first: usize,
    after: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    data: Data,
}

#[derive(Serialize)]
struct Data {
    products: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    nodes: Vec<Node>,
    page_info: PageInfo,
}

#[derive(Serialize)]
struct Node {
    name: String,
    price: String,
    available: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

async fn products(
    State(pool): State<Pool>,
    Json(Request { variables: Variables { first, after } }): Json<Request>,
) -> Result<Json<Answer>, StatusCode> {
    let after = after.map(|cursor| OpaqueCursor::<Place>::decode_cursor(&cursor)).transpose();
    let after = after.map_err(|_| StatusCode::BAD_REQUEST)?;
    let limit = i64::try_from(first).map_err(|_| StatusCode::BAD_REQUEST)? + 1;
    let slice = Slice { after: after.as_ref().map(|cursor| &cursor.0), before: None, backward: false, limit };
    let order = Order { field: Field::Id, descending: false };
    let read = async {
        let mut conn = pool.acquire().await?;
        product::page(&mut conn, &Filter::default(), order, slice).await
    };
    let mut products = read.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let has_next_page = products.len() > first;
    products.truncate(first);
    let end_cursor = products.last().map(|last| OpaqueCursor(Place::of(last, Field::Id)).encode_cursor());
    let nodes = products.into_iter().map(|product| Node {
        available: product.level().available(),
        name: product.name,
        price: format!("{:.2}", product.price),
    });
    let page = Page { nodes: nodes.collect(), page_info: PageInfo { has_next_page, end_cursor } };
    Ok(Json(Answer { data: Data { products: page } }))
}
