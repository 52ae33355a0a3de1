//! The tidying: releases what expired and forgets old idempotency keys. Nothing waits for it; an engine that is short
//! takes what is due by itself.

use std::time::Duration;

use messaging::Fault;
use messaging::outbox::Relay;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Engine;
use crate::{hold, ledger};

/// Sweeps once in each period until `shutdown`.
pub async fn run(pool: &PgPool, relay: &Relay, engine: &Engine, shutdown: &CancellationToken) {
    let period = Duration::from_millis(engine.sweep_period_ms);
    let sweeping = async {
        loop {
            tokio::time::sleep(period).await;
            if let Err(error) = sweep(pool, relay, engine).await {
                tracing::warn!(%error, "the sweep has to wait");
            }
        }
    };
    // What a sweep has begun is rolled back, and the next one does it.
    shutdown.run_until_cancelled(sweeping).await;
}

/// One sweep.
///
/// # Errors
/// When the database is away; what was swept so far stays swept.
pub async fn sweep(pool: &PgPool, relay: &Relay, engine: &Engine) -> Result<(), Fault> {
    loop {
        let expired = hold::expire_due(pool).await?;
        if expired == 0 {
            break;
        }
        metrics::counter!("holds_expired_total").increment(expired as u64);
        relay.wake();
    }
    let mut conn = pool.acquire().await?;
    ledger::forget_adjustments(&mut conn, engine.idempotency_ttl_hours).await?;
    Ok(())
}
