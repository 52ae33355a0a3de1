//! A service's HTTP server: its own routes, and what every service answers.

use std::time::Duration;

use axum::Router;
use axum::http::Response;
use axum::http::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use crate::health::Health;

/// Adds health and metrics to a service's own routes, and logs each request in one line.
pub fn router(own: Router, health: Health, metrics: PrometheusHandle) -> Router {
    let referrer = SetResponseHeaderLayer::if_not_present(
        HeaderName::from_static("referrer-policy"),
        HeaderValue::from_static("same-origin"),
    );
    own.merge(health.routes())
        .route("/metrics", get(move || std::future::ready(metrics.render())))
        .layer(SetResponseHeaderLayer::if_not_present(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(referrer)
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http().on_request(()).on_response(log).on_failure(()))
}

fn log<B>(response: &Response<B>, latency: Duration, _span: &Span) {
    metrics::histogram!("http_request_seconds", "status" => response.status().as_u16().to_string())
        .record(latency.as_secs_f64());
    tracing::debug!(http.status = response.status().as_u16(), duration_ms = latency.as_millis(), "answered");
}

/// Serves until `shutdown`, then finishes the requests that have begun.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(http.address = %listener.local_addr()?, "listening");
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
