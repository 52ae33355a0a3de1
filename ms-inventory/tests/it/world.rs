use std::future::Future;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use auth::local::LocalIssuer;
use clap::Parser;
use database::{Bounds, Pool};
use dev::testing::{Database, Folder, Vhost};
use events::{Item, OrderId};
use metrics_exporter_prometheus::PrometheusHandle;
use ms_inventory::config::Config;
use ms_inventory::hold::Reserver;
use ms_inventory::stock::Level;
use ms_inventory::{MIGRATIONS, doctor};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Whom the instances of these tests trust. Its folder goes with all the others of a test run.
pub(crate) static ISSUER: LazyLock<LocalIssuer> = LazyLock::new(|| {
    let folder = std::mem::ManuallyDrop::new(Folder::create("keys").unwrap());
    LocalIssuer::create(folder.path()).unwrap()
});

/// Who asks where a test does not say.
pub(crate) const ADMIN: Uuid = Uuid::from_u128(1);

/// A database of its own, migrated.
pub(crate) struct World {
    /// For what the test asks of the database itself.
    pub(crate) pool: PgPool,
    /// For what is tested.
    pub(crate) connections: Pool,
    pub(crate) database: Database,
    /// Whoever reserves in this world, so that both ways are taken.
    pub(crate) reserver: Reserver,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Database::create("inventory").unwrap()).await
    }

    /// So many, each with a vhost, for what runs side by side. They are made before it begins and dropped after its end, because
    /// both block.
    pub(crate) async fn several(count: usize, vhost: impl Fn() -> Vhost) -> Vec<(Self, Vhost)> {
        let mut worlds = Vec::new();
        for _ in 0..count {
            worlds.push((Self::new().await, vhost()));
        }
        worlds
    }

    pub(crate) async fn on(database: Database) -> Self {
        let bounds = Bounds { database_max_connections: 10, database_acquire_timeout_seconds: 30, ..Bounds::default() };
        let pool = PgPool::connect(database.url()).await.unwrap();
        let connections = database::Database::open(&database.url().into(), "test", &bounds).unwrap().requests;
        MIGRATIONS.run(&pool).await.unwrap();
        Self { reserver: Reserver::new(connections.clone()), connections, pool, database }
    }

    /// A new product of which so many were received.
    pub(crate) async fn product(&self, on_hand: i64) -> i64 {
        sqlx::query_scalar(
            "with product as (
                 insert into products (sku, name, price) values (gen_random_uuid()::text, 'Thing', 9.90) returning id
             ), received as (
                 insert into movements (product_id, quantity, reason, actor)
                 select id, $1, 'received', 'test' from product where $1 > 0
             ), stocked as (
                 insert into stock (product_id, on_hand) select id, $1 from product
             )
             select id from product",
        )
        .bind(on_hand)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    pub(crate) async fn level(&self, product_id: i64) -> Level {
        let (on_hand, reserved) = sqlx::query_as("select on_hand, reserved from stock where product_id = $1")
            .bind(product_id)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        Level { on_hand, reserved }
    }

    /// How many holds of this status there are.
    pub(crate) async fn holds(&self, status: &str) -> i64 {
        sqlx::query_scalar("select count(*) from holds where status::text = $1")
            .bind(status)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Moves the end of every live hold into the past.
    pub(crate) async fn let_holds_run_out(&self) {
        sqlx::query("update holds set expires_at = now() - interval '1 second' where status = 'held'")
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn assert_adds_up(&self) {
        assert_eq!(doctor::examine(&self.connections).await.unwrap(), []);
    }

    /// Starts an instance on this database and waits until it is ready.
    pub(crate) async fn start(&self, vhost: &Vhost, args: &[&str]) -> Instance {
        Instance::start(self.database.url(), vhost.amqp_url(), args).await
    }
}

/// A running ms-inventory.
pub(crate) struct Instance {
    pub(crate) url: String,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Instance {
    pub(crate) async fn start(database_url: &str, amqp_url: &str, args: &[&str]) -> Self {
        let instance = Self::start_unready(database_url, amqp_url, args).await;
        eventually("the instance is ready", async || instance.is_ready().await).await;
        instance
    }

    pub(crate) async fn start_unready(database_url: &str, amqp_url: &str, args: &[&str]) -> Self {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            config: Config,
        }
        let fixed = ["ms-inventory", "--port", "0", "--database-url", database_url, "--amqp-url", amqp_url];
        let trust = ["--jwks-url", ISSUER.jwks_url()];
        let cli = Cli::try_parse_from(fixed.iter().chain(&trust).chain(args)).unwrap();
        let shutdown = CancellationToken::new();
        let running = ms_inventory::start(cli.config, metrics(), shutdown.clone()).await.unwrap();
        Self { url: format!("http://{}", running.address), shutdown, ended: running.ended }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = reqwest::get(format!("{}/health/ready", self.url)).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) async fn health(&self) -> Value {
        reqwest::get(format!("{}/health", self.url)).await.unwrap().json().await.unwrap()
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.ended).await.expect("drained in time").unwrap().unwrap();
    }

    /// Ends it wherever it is, as a killed process would.
    pub(crate) async fn kill(self) {
        self.ended.abort();
        self.ended.await.ok();
    }
}

/// The one recorder of this process.
pub(crate) fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| boot::telemetry::metrics().unwrap()).clone()
}

/// Waits until the condition holds, with a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "still not so after {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn order_id(text: impl Into<String>) -> OrderId {
    OrderId::try_from(text.into()).unwrap()
}

pub(crate) fn items(pairs: &[(i64, i64)]) -> Vec<Item> {
    pairs.iter().map(|&(product_id, quantity)| Item { product_id, quantity }).collect()
}
