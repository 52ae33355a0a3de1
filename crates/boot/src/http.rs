//! A service's HTTP server: its own routes, and what every service answers.

mod edge;
mod server;
mod tls;

use std::time::Duration;

use axum::Router;
use axum::http::Response;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use crate::health::Health;

pub use server::Server;

/// Adds health and metrics to a service's own routes, and logs each request in one line.
pub fn router(own: Router, health: Health, metrics: PrometheusHandle) -> Router {
    own.merge(health.routes())
        .route("/metrics", get(move || std::future::ready(metrics.render())))
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http().on_request(()).on_response(log).on_failure(()))
}

fn log<B>(response: &Response<B>, latency: Duration, _span: &Span) {
    metrics::histogram!("http_request_seconds", "status" => response.status().as_u16().to_string())
        .record(latency.as_secs_f64());
    tracing::debug!(http.status = response.status().as_u16(), duration_ms = latency.as_millis(), "answered");
}
