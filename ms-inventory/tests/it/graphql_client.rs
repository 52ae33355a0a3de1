use std::time::Duration;

use auth::Role;
use boot::config::Http;
use database::{LockWait, Pool};
use messaging::outbox::Relay;
use ms_inventory::graphql;
use ms_inventory::hold::{Answer, Order};
use ms_inventory::stock::Request;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::world::{ADMIN, ISSUER, World, items, order_id};

/// All fields of a product.
pub(crate) const PRODUCT: &str = "id sku name description price onHand reserved available version createdAt updatedAt";

/// GraphQL over HTTP, on a database, without a broker.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    http: Client,
    token: String,
}

/// Serves for as long as it is not dropped.
pub(crate) struct Served {
    pub(crate) api: Api,
    server: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl std::ops::Deref for Served {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Api {
    pub(crate) async fn serve(pool: &Pool) -> Served {
        let relay = Relay::new(pool.clone(), Duration::from_secs(60));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/graphql", listener.local_addr().unwrap());
        let http = Http { rate_limit_cost_per_second: 0, ..Http::default() };
        let router = auth::bearer::identified(graphql::router(pool.clone(), relay, &http), ISSUER.verifier().unwrap());
        let token = ISSUER.token(ADMIN, Role::Admin).unwrap();
        let server = tokio::spawn(async { axum::serve(listener, router).await }).abort_handle();
        Served { api: Self { url, http: Client::new(), token }, server }
    }

    /// What the server answers to the whole request.
    pub(crate) async fn send(&self, query: &str, variables: Value) -> Value {
        let request = self.http.post(&self.url).json(&json!({ "query": query, "variables": variables }));
        request.bearer_auth(&self.token).send().await.unwrap().json().await.unwrap()
    }

    /// The one field of a request that succeeds.
    pub(crate) async fn ask(&self, query: &str, variables: Value) -> Value {
        let answer = self.send(query, variables).await;
        assert_eq!(answer["errors"], Value::Null, "{query:.300}");
        let field = answer["data"].as_object().unwrap().values().next();
        field.unwrap().clone()
    }

    /// The first error of a request that is refused, with this code wherever it is.
    pub(crate) async fn refused(&self, code: &str, query: &str, variables: Value) -> Value {
        let answer = self.send(query, variables).await;
        let errors = answer["errors"].as_array();
        let errors = errors.unwrap_or_else(|| panic!("{answer:.500} to {query:.300}"));
        for error in errors {
            assert_eq!(error["extensions"]["code"], code, "{error} to {query:.300}");
        }
        errors[0].clone()
    }

    pub(crate) async fn create(&self, input: Value) -> Value {
        self.ask(
            &format!("mutation($input: ProductInput!) {{ createProduct(input: $input) {{ {PRODUCT} }} }}"),
            json!({ "input": input }),
        )
        .await
    }

    pub(crate) async fn refused_create(&self, code: &str, input: Value) -> Value {
        let create = "mutation($input: ProductInput!) { createProduct(input: $input) { id } }";
        self.refused(code, create, json!({ "input": input })).await
    }

    pub(crate) async fn product(&self, id: &Value) -> Value {
        self.ask(&format!("query($id: ID!) {{ product(id: $id) {{ {PRODUCT} }} }}"), json!({ "id": id })).await
    }
}

impl World {
    /// Has stock held for orders, given as their id and their lines.
    pub(crate) async fn hold<I: Into<String>>(
        &self,
        orders: impl IntoIterator<Item = (I, Vec<(i64, i64)>)>,
    ) -> Vec<Answer> {
        let order = |(id, lines): (I, Vec<_>)| Order { id: order_id(id), request: Request::of(&items(&lines)) };
        let orders: Vec<Order> = orders.into_iter().map(order).collect();
        self.reserver.reserve(LockWait::Usual, &orders, Duration::from_secs(900)).await.unwrap().answers
    }

    /// The events in the outbox, in order.
    pub(crate) async fn told(&self) -> Vec<Value> {
        let bodies: Vec<Vec<u8>> =
            sqlx::query_scalar("select body from outbox order by id").fetch_all(&self.pool).await.unwrap();
        bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }
}

/// The nodes of a connection.
pub(crate) fn nodes(connection: &Value, field: &str) -> Vec<Value> {
    connection["nodes"].as_array().unwrap().iter().map(|node| node[field].clone()).collect()
}
