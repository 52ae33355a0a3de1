//! Accounts: who may log in, and the tokens by which the other services know them.
//!
//! In reading order: [`email`] and [`password`] are what people type, [`account`] who they are, [`session`] where they are
//! signed in, [`signing`] the keys that vouch for it, [`throttle`] who guesses too often, [`graphql`] what people see
//! of it.
//!
//! **Architecture Invariant:** no other service sees a password, a refresh token or a private key, and this one stores
//! none of them as it is.

pub mod account;
pub mod config;
pub mod email;
pub mod graphql;
pub mod password;
pub mod session;
pub mod signing;
pub mod throttle;

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use backon::{ExponentialBuilder, Retryable};
use boot::config::Environment;
use boot::health::Health;
use boot::service::Running;
use database::{Database, Failures, Pool, WORK_TIMEOUT, is_passing};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::password::Hasher;
use crate::signing::Seal;

/// The service's name to the database.
pub const APP: &str = "ms-users";

/// The schema of the database, in order.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// How often the keys and the revoked accounts are read again: another instance may have changed them.
const KEYS_PERIOD: Duration = Duration::from_secs(5);

/// How often sessions that are over are deleted.
const TIDY_PERIOD: Duration = Duration::from_secs(60);

/// The longest pause before the first accounts and keys are tried again.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong or one for development, the port is taken, a migration fails, or draining takes too
/// long.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    boot::telemetry::log(config.process.log_format)?;
    config.refuse_demo_secrets()?;
    let metrics = boot::telemetry::metrics()?;
    let shutdown = boot::shutdown::on_signal()?;
    start(config, metrics, shutdown).await?.ended.await?
}

/// Starts one instance. It listens when this returns, and is ready once its database is there.
///
/// # Errors
/// When the configuration is wrong or the port is taken.
pub async fn start(config: Config, metrics: PrometheusHandle, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let database = database(&config.database)?;
    let seal = Seal::of(&config.keys.key_encryption_secret)?;
    let signing = signing::Signing::new(database.pool.clone(), seal, config.tokens.clone());
    let verifier = config.tokens.verifier(signing.keys().clone());

    let hasher = Hasher::new(config.login.password_hashes_at_once)?;
    let routes = auth::bearer::identified(graphql::router(&database, &signing, &hasher, &config), verifier);
    let routes = routes.merge(published_keys(signing.clone()));
    let routes = routes.merge(demo_token(config.process.environment, &database, &signing));
    let failures = Failures::default();
    let routes = boot::http::router(routes, health(&shutdown, &database, &failures, &signing), metrics);
    let Config { process, port, accounts, .. } = config;
    let environment = process.environment;
    let work = {
        let shutdown = shutdown.clone();
        async move {
            let migrated = shutdown.run_until_cancelled(database.migrate(&MIGRATIONS)).await;
            let Some(migrated) = migrated else { return Ok(()) };
            migrated?;
            let preparing = prepare(|| async {
                account::first::open_missing(&database.pool, &hasher, &accounts, environment).await?;
                signing.ensure_key().await
            });
            let Some(prepared) = shutdown.run_until_cancelled(preparing).await else { return Ok(()) };
            prepared?;
            tokio::join!(signing.follow(KEYS_PERIOD, &shutdown), tidy(&database.pool, &failures, &shutdown));
            Ok(())
        }
    };
    boot::service::start(&process, port, routes, work, shutdown).await
}

/// Does what has to be there before anybody is let in. A database that is away, read-only or busy is waited for.
async fn prepare<F: Future<Output = anyhow::Result<()>>>(work: impl Fn() -> F) -> anyhow::Result<()> {
    let bounded = || async {
        let done = tokio::time::timeout(WORK_TIMEOUT, work()).await;
        done.unwrap_or_else(|_elapsed| Err(sqlx::Error::PoolTimedOut.into()))
    };
    let pauses = ExponentialBuilder::default().with_max_delay(MAX_PAUSE).with_jitter().without_max_times();
    let waiting_cures = |error: &anyhow::Error| error.chain().filter_map(|cause| cause.downcast_ref()).any(is_passing);
    let warn = |error: &anyhow::Error, pause: Duration| {
        tracing::warn!(
            error = format!("{error:#}"),
            pause_ms = pause.as_millis(),
            "the first accounts and keys have to wait"
        );
    };
    bounded.retry(pauses).when(waiting_cures).notify(warn).await
}

/// The database, as configured.
///
/// # Errors
/// When the URL is none.
pub fn database(config: &config::Database) -> anyhow::Result<Database> {
    Database::open(&config.database_url, APP, &config.bounds)
}

fn published_keys(signing: signing::Signing) -> Router {
    const JSON: (HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
    let document = move || {
        // A set without keys would be taken for one.
        let document = signing.check().is_ok().then(|| ([JSON], signing.published()));
        std::future::ready(document.ok_or(StatusCode::SERVICE_UNAVAILABLE))
    };
    Router::new().route(auth::keys::PATH, get(document))
}

/// For the playground, in development.
fn demo_token(environment: Environment, database: &Database, signing: &signing::Signing) -> Router {
    let (pool, signing) = (database.requests.clone(), signing.clone());
    auth::demo::route(environment, move || {
        let (pool, signing) = (pool.clone(), signing.clone());
        async move {
            let mut tx = pool.begin().await?;
            let admin = account::find_password(&mut tx, boot::demo::ADMIN_EMAIL).await?;
            let (id, _) = admin.context("there are no demo accounts")?;
            let admin = account::reenter(&mut tx, id).await?.context("it is disabled")?;
            let (token, _) = signing.token(&mut tx, &admin).await?;
            tx.commit().await?;
            Ok(token)
        }
    })
}

fn health(
    shutdown: &CancellationToken,
    database: &Database,
    failures: &Failures,
    signing: &signing::Signing,
) -> Health {
    let (database, failures, signing) = (database.clone(), failures.clone(), signing.clone());
    Health::new(shutdown.clone())
        .needs("postgres", move || {
            let database = database.clone();
            async move { database.check().await }
        })
        .uses("background-work", move || std::future::ready(failures.check()))
        .needs("signing-key", move || std::future::ready(signing.check()))
}

/// Deletes sessions that are over, until `shutdown`.
async fn tidy(pool: &Pool, failures: &Failures, shutdown: &CancellationToken) {
    let tidy = || session::forget_ended(pool);
    database::repeat("old sessions", TIDY_PERIOD, shutdown, failures, tidy).await;
}
