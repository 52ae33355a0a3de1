use std::time::Duration;

use graphql::Limits;
use reqwest::{RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::schema;

/// What `Accept` says when a client knows the specification.
pub(crate) const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

/// A server of the test schema on a port of its own, stopped when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    task: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::serve(graphql::router(schema::build(), limits)).await
    }

    pub(crate) async fn serve(app: axum::Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/graphql", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        Self { url, client, task }
    }

    pub(crate) fn post(&self) -> RequestBuilder {
        self.client.post(&self.url).header("accept", GRAPHQL_RESPONSE)
    }

    pub(crate) fn get(&self) -> RequestBuilder {
        self.client.get(&self.url).header("accept", GRAPHQL_RESPONSE)
    }

    pub(crate) async fn query(&self, query: &str) -> Answer {
        self.query_with(query, Value::Null).await
    }

    pub(crate) async fn query_with(&self, query: &str, variables: Value) -> Answer {
        answer(self.post().json(&serde_json::json!({ "query": query, "variables": variables }))).await
    }

    /// Sends a body as it stands.
    pub(crate) async fn send(&self, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.post().header("content-type", "application/json").body(body)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    Answer { status, headers, body }
}

impl Answer {
    /// The first error's code.
    pub(crate) fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}"))
    }

    /// The first error's message.
    pub(crate) fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a request error: refused before execution, with this code.
    #[track_caller]
    pub(crate) fn is_request_error(&self, code: &str) {
        assert_eq!((self.status, self.code()), (StatusCode::BAD_REQUEST, code), "{self:?}");
        assert!(self.body.get("data").is_none(), "{self:?}");
    }
}
