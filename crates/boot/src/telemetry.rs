//! Logs to standard output, and metrics for `/metrics`.

use std::io::IsTerminal;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// lapin logs the whole body of a message that reached no queue, and each broken connection as an error; we log the
/// message's id, and the session that begins anew. sqlx passes on the server's notices.
const DEFAULT_FILTER: &str = "info,lapin=off,sqlx=warn";

/// Whether a line may be logged, whatever `RUST_LOG` says. At this level lapin logs each frame it sends, and one of them
/// holds the password.
fn is_harmless(line: &Metadata<'_>) -> bool {
    *line.level() < Level::TRACE || !line.target().starts_with("lapin")
}

/// Begins to log, by `RUST_LOG` where it is set.
///
/// # Errors
/// When `RUST_LOG` cannot be read, or logging has begun already.
pub fn log(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) => EnvFilter::try_new(filter).context("cannot read RUST_LOG")?,
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stdout().is_terminal());
    match format {
        LogFormat::Text => log.with_target(false).finish().with(filter_fn(is_harmless)).try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(filter_fn(is_harmless)).try_init(),
    }
    .context("cannot log")
}

/// Begins to count, for the whole process.
///
/// # Errors
/// When counting has begun already.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0])
        .context("no buckets")?
        .set_buckets_for_metric(
            metrics_exporter_prometheus::Matcher::Full("batch_messages".into()),
            &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0],
        )
        .context("no buckets")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics have begun already")?;
    Ok(handle)
}
