use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use auth::Role;
use auth::local::LocalIssuer;
use dev::instance::Instance;
use sqlx::PgPool;
use uuid::Uuid;

use super::request;
use crate::ground::{Ground, built};
use crate::http::{Load, Measured};
use crate::load::PRODUCTS;
use crate::machine::{Used, Watch};
use crate::scenario::catalogue;

/// How long orders may take to be published, and then to be confirmed, once no more are placed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the database is looked at while orders settle.
const LOOK: Duration = Duration::from_millis(100);

/// Both services, with more stock than will be sold.
pub(super) struct Shop {
    orders: Instance,
    inventory: Instance,
    inventory_database: String,
    issuer: LocalIssuer,
    database: PgPool,
    accepted: Arc<AtomicU64>,
    watch: Watch,
}

/// What came of a load on createOrder.
pub(super) struct Placed {
    /// How customers were served.
    pub http: Measured,
    /// From the last answer until the outbox was empty.
    pub published_after: Duration,
    /// From then, or from when inventory was let go on, until every order was confirmed.
    pub settled_after: Duration,
    /// Processor time of each process for one order, until it was confirmed.
    pub cost: String,
    /// Who used the processors.
    pub used: Used,
}

impl Shop {
    /// Opens it: ms-inventory with its products, then ms-orders, until it knows them all.
    pub(super) async fn open(ground: &Ground) -> Result<Self> {
        let (inventory_database, orders_database) = (ground.database("inventory")?, ground.database("orders")?);
        let amqp_url = ground.vhost("shop")?;
        let broker = ("AMQP_URL", amqp_url.as_str());
        let database = ("INVENTORY_DATABASE_URL", inventory_database.as_str());
        let inventory = ground.serve("ms-inventory", "inventory", &[database, broker])?;
        catalogue::fill(&inventory_database, PRODUCTS)?;
        let issuer = LocalIssuer::create(ground.dir())?;
        // What is measured is placing and confirming: no payment becomes due meanwhile.
        let environment = [
            ("ORDERS_DATABASE_URL", orders_database.as_str()),
            broker,
            ("INVENTORY_URL", inventory.url()),
            ("PAYMENT_DELAY_SECONDS", "86400"),
            // All customers share one account.
            ("MAX_UNPAID_ORDERS", "0"),
            ("MAX_UNPAID_UNITS", "0"),
            ("JWKS_URL", issuer.jwks_url()),
        ];
        let orders = ground.serve("ms-orders", "orders", &environment)?;
        let database = PgPool::connect(&orders_database).await?;
        let watch = Watch::new().and("broker", ground.rabbitmq().pid()).and("database", ground.postgres().pid());
        let watch = watch.and("ms-inventory", inventory.pid()).and("ms-orders", orders.pid());
        let accepted = Arc::default();
        let shop = Self { orders, inventory, inventory_database, issuer, database, accepted, watch };
        // And the one that is sold out.
        let known = "select count(*) = $1 from catalogue";
        shop.wait(|| async { Ok(sqlx::query_scalar(known).bind(PRODUCTS + 1).fetch_one(&shop.database).await?) })
            .await?;
        Ok(shop)
    }

    /// The base URL of ms-orders.
    pub(super) fn url(&self) -> &str {
        self.orders.url()
    }

    /// A token of a customer.
    pub(super) fn token(&self) -> Result<Option<String>> {
        self.issuer.token(Uuid::from_u128(1), Role::User).map(Some)
    }

    /// The database of ms-orders.
    pub(super) fn database(&self) -> &PgPool {
        &self.database
    }

    /// Places orders, and waits until all are published and confirmed.
    pub(super) async fn measure(&self, load: Load) -> Result<Placed> {
        self.measure_until(load, || ()).await
    }

    /// The same with inventory frozen until all are published: what ms-orders does by itself. Not for longer than the
    /// broker bears a connection that is silent, which is 20 s.
    pub(super) async fn measure_alone(&self, load: Load) -> Result<Placed> {
        self.inventory.pause();
        let placed = self.measure_until(load, || self.inventory.resume()).await;
        self.inventory.resume();
        placed
    }

    async fn measure_until(&self, load: Load, published: impl FnOnce()) -> Result<Placed> {
        let (before, first) = (self.accepted.load(Ordering::Relaxed), self.watch.look()?);
        let accepted = self.accepted.clone();
        let check = move |_, answer: &str| {
            accepted.fetch_add(1, Ordering::Relaxed);
            request::check(answer)
        };
        let http = load.run(|number| request::body("order", number), check).await?;
        let published_after = self.published().await?;
        published();
        let settled_after = self.settled().await?;
        let used = first.until(&self.watch.look()?);
        let cost = used.per((self.accepted.load(Ordering::Relaxed) - before) as f64);
        Ok(Placed { http, published_after, settled_after, cost, used })
    }

    /// Counts the orders that were accepted, for who places some by himself.
    pub(super) fn accepted(&self) -> Arc<AtomicU64> {
        self.accepted.clone()
    }

    /// Waits until the outbox is empty.
    pub(super) async fn published(&self) -> Result<Duration> {
        let empty = "select not exists (select from outbox)";
        self.wait(|| async { Ok(sqlx::query_scalar(empty).fetch_one(&self.database).await?) }).await
    }

    /// Waits until every order is answered.
    pub(super) async fn settled(&self) -> Result<Duration> {
        // By the index that holds nothing but these; without the bound the planner reads the table.
        let none_pending = "select not exists (select from orders where status = 'pending')";
        self.wait(|| async { Ok(sqlx::query_scalar(none_pending).fetch_one(&self.database).await?) }).await
    }

    /// Voids the run unless each accepted order is there and confirmed, no other is, and inventory's stock adds up.
    pub(super) async fn verify(&self) -> Result<()> {
        let count = "select count(*), count(*) filter (where status = 'confirmed') from orders";
        let (orders, confirmed): (i64, i64) = sqlx::query_as(count).fetch_one(&self.database).await?;
        let accepted = self.accepted.load(Ordering::Relaxed) as i64;
        ensure!(orders == accepted, "{accepted} orders were accepted, the database has {orders}");
        ensure!(confirmed == accepted, "{accepted} orders were accepted, {confirmed} are confirmed");
        let mut doctor = Command::new(built("ms-inventory")?);
        let doctor = doctor.arg("doctor").env("INVENTORY_DATABASE_URL", &self.inventory_database).output()?;
        ensure!(doctor.status.success(), "the doctor finds drift:\n{}", String::from_utf8_lossy(&doctor.stdout));
        Ok(())
    }

    async fn wait<F: Future<Output = Result<bool>>>(&self, is_so: impl Fn() -> F) -> Result<Duration> {
        let begun = Instant::now();
        while !is_so().await? {
            ensure!(begun.elapsed() < PATIENCE, "orders do not settle within {} s", PATIENCE.as_secs());
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }
}
