//! The tidying: releases what expired and forgets old idempotency keys. Nothing waits for it; an engine that is short
//! takes what is due by itself.

use std::time::Duration;

use database::{Pool, bounded};
use messaging::Fault;
use messaging::outbox::Relay;
use tokio_util::sync::CancellationToken;

use crate::config::Engine;
use crate::{hold, ledger};

/// How long one sweep may take; what it committed until then stays, and the next one goes on.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Sweeps once in each period until `shutdown`.
pub async fn run(pool: &Pool, relay: &Relay, engine: &Engine, shutdown: &CancellationToken) {
    let period = Duration::from_millis(engine.sweep_period_ms);
    while shutdown.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
        match bounded(SWEEP_TIMEOUT, shutdown, sweep(pool, relay, engine)).await {
            Some(Ok(())) => (),
            Some(Err(error)) => tracing::warn!(%error, "the sweep has to wait"),
            None => tracing::warn!("the sweep timed out"),
        }
    }
}

/// One sweep.
///
/// # Errors
/// When the database is away; what was swept so far stays swept.
pub async fn sweep(pool: &Pool, relay: &Relay, engine: &Engine) -> Result<(), Fault> {
    loop {
        let expired = hold::expire_due(pool).await?;
        if expired == 0 {
            break;
        }
        metrics::counter!("holds_expired_total").increment(expired as u64);
        relay.wake();
    }
    let mut tx = pool.begin().await?;
    ledger::forget_adjustments(&mut tx, engine.idempotency_ttl_hours).await?;
    tx.commit().await?;
    Ok(())
}
