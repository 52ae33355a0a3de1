//! Whether a service lives, whether it is ready, and how each thing it needs does.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// A dependency that takes longer than this to say how it does is down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Check = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The things a service depends on, and how to ask each how it does.
pub struct Health {
    draining: CancellationToken,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: &'static str,
    needed: bool,
    check: Check,
}

/// What `/health` tells.
#[derive(Debug, Serialize)]
struct Report {
    status: Status,
    ready: bool,
    draining: bool,
    dependencies: BTreeMap<&'static str, DependencyReport>,
}

#[derive(Debug, Serialize)]
struct DependencyReport {
    status: Status,
    needed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Up,
    Down,
}

impl Health {
    /// No longer ready once `draining` is cancelled.
    pub fn new(draining: CancellationToken) -> Self {
        Self { draining, dependencies: Vec::new() }
    }

    /// Without this dependency the service is not ready.
    #[must_use]
    pub fn needs<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.watches(name, true, check)
    }

    /// Without this dependency the service still does what it is asked, and catches up later.
    #[must_use]
    pub fn uses<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.watches(name, false, check)
    }

    fn watches<F>(mut self, name: &'static str, needed: bool, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.dependencies.push(Dependency { name, needed, check: Box::new(move || Box::pin(check())) });
        self
    }

    /// `/health/live`, `/health/ready`, and `/health` with both and every dependency.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/health/live", get(|| async { "live" }))
            .route("/health/ready", get(ready))
            .route("/health", get(whole))
            .with_state(Arc::new(self))
    }

    async fn report(&self) -> Report {
        let mut dependencies = BTreeMap::new();
        for Dependency { name, needed, check } in &self.dependencies {
            let answer = tokio::time::timeout(CHECK_TIMEOUT, check()).await;
            let reason =
                answer.unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))).err();
            let status = if reason.is_none() { Status::Up } else { Status::Down };
            dependencies.insert(*name, DependencyReport { status, needed: *needed, reason });
        }
        let draining = self.draining.is_cancelled();
        let all_up = dependencies.values().all(|d| d.status == Status::Up);
        Report {
            status: if all_up && !draining { Status::Up } else { Status::Down },
            ready: !draining && dependencies.values().all(|d| d.status == Status::Up || !d.needed),
            draining,
            dependencies,
        }
    }
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    if health.report().await.ready {
        "ready".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready; see /health").into_response()
    }
}

async fn whole(State(health): State<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status = if report.status == Status::Up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}
