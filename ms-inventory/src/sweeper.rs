//! The tidying: releases what expired and forgets old idempotency keys. Nothing waits for it; an engine that is short
//! takes what is due by itself.

use std::time::Duration;

use database::{Failures, Pool};
use messaging::Fault;
use messaging::outbox::Relay;
use tokio_util::sync::CancellationToken;

use crate::config::Engine;
use crate::{hold, ledger};

/// How often old idempotency keys are looked for.
const FORGET_PERIOD: Duration = Duration::from_secs(60);

/// Sweeps until `shutdown`.
pub async fn run(pool: &Pool, relay: &Relay, engine: &Engine, failures: &Failures, shutdown: &CancellationToken) {
    let expire = || async {
        let expired = hold::expire_due(pool).await?;
        if expired > 0 {
            metrics::counter!("holds_expired_total").increment(expired as u64);
            relay.wake();
        }
        Ok::<_, Fault>(expired > 0)
    };
    let forget = || async {
        let mut tx = pool.begin().await?;
        let more = ledger::forget_adjustments(&mut tx, engine.idempotency_ttl_hours).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(more)
    };
    let period = Duration::from_millis(engine.sweep_period_ms);
    tokio::join!(
        database::repeat("expired holds", period, shutdown, failures, expire),
        database::repeat("old idempotency keys", FORGET_PERIOD, shutdown, failures, forget),
    );
}
