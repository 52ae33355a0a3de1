use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use auth::keys::PATH;
use boot::service::Running;
use clap::Parser;
use database::{Bounds, Pool};
use dev::testing::Database;
use metrics_exporter_prometheus::PrometheusHandle;
use ms_users::config::Config;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const SECRET: &str = "a secret of these tests";

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A database of its own, and an instance on it.
pub(crate) struct World {
    pub(crate) api: Instance,
    /// For what the test asks of the database itself.
    pub(crate) pool: PgPool,
    /// For what is tested.
    pub(crate) connections: Pool,
    pub(crate) database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(args: &[&str]) -> Self {
        Self::on(Database::create("users").unwrap(), args).await
    }

    /// [`Self::new`], where PostgreSQL's clock is so many seconds ahead of this host's, or behind it if that is negative:
    /// its clock functions are hidden by others.
    pub(crate) async fn with_clock_ahead(seconds: i32) -> Self {
        let database = Database::create("users").unwrap();
        let pool = PgPool::connect(database.url()).await.unwrap();
        let mut statements = format!("alter database {} set search_path = public, pg_catalog;", database.name());
        for (clock, volatility) in [("now", "stable"), ("clock_timestamp", "volatile")] {
            statements += &format!(
                "create function public.{clock}() returns timestamptz language sql {volatility}
                 as 'select pg_catalog.{clock}() + interval ''{seconds} seconds''';"
            );
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&pool).await.unwrap();
        Self::on(database, &[]).await
    }

    async fn on(database: Database, args: &[&str]) -> Self {
        let api = Instance::start(database.url(), args).await;
        let pool = PgPool::connect(database.url()).await.unwrap();
        let connections =
            database::Database::open(&database.url().into(), "test", &Bounds::default()).unwrap().requests;
        Self { api, pool, connections, database }
    }
}

/// A running ms-users.
pub(crate) struct Instance {
    pub(crate) url: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    _ended: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn run(database_url: &str, args: &[&str]) -> (Running, CancellationToken) {
    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }
    let fixed = ["ms-users", "--port", "0", "--database-url", database_url, "--key-encryption-secret", SECRET];
    let admin = ["--admin-email", "root@example.com", "--admin-password", PASSWORD, "--logins-per-minute", "100000"];
    let cli = Cli::try_parse_from(fixed.iter().chain(&admin).chain(args)).unwrap();
    let shutdown = CancellationToken::new();
    (ms_users::start(cli.config, metrics(), shutdown.clone()).await.unwrap(), shutdown)
}

/// What a client holds.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) user: Value,
}

impl Instance {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(database_url: &str, args: &[&str]) -> Self {
        let (running, shutdown) = run(database_url, args).await;
        let url = format!("http://{}", running.address);
        let instance = Self { url, http: reqwest::Client::new(), shutdown, _ended: running.ended };
        let ready = async || instance.get("/health/ready").await.status().is_success();
        eventually("the instance is ready", ready).await;
        instance
    }

    /// Starts one, and waits until it ends by itself.
    pub(crate) async fn ended(database_url: &str, args: &[&str]) -> anyhow::Result<()> {
        let (running, _) = run(database_url, args).await;
        tokio::time::timeout(DEADLINE, running.ended).await.expect("it ends").unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// What is published.
    pub(crate) async fn published(&self) -> Value {
        self.get(PATH).await.json().await.unwrap()
    }

    /// Sends a GraphQL request, with a token unless that is empty, and returns the whole response.
    pub(crate) async fn send(&self, token: &str, query: &str, variables: Value) -> Value {
        let request = self.http.post(format!("{}/graphql", self.url));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let request = request.json(&json!({"query": query, "variables": variables}));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The answer of the only field of a request that succeeds.
    pub(crate) async fn ask(&self, token: &str, query: &str, variables: Value) -> Value {
        let mut response = self.send(token, query, variables).await;
        assert!(response["errors"].is_null(), "{response}");
        response["data"].as_object_mut().unwrap().values_mut().next().unwrap().take()
    }

    /// The error of a request that is refused with this code.
    pub(crate) async fn refused(&self, code: &str, token: &str, query: &str, variables: Value) -> Value {
        let mut response = self.send(token, query, variables).await;
        assert_eq!(response["errors"][0]["extensions"]["code"], code, "{response}");
        response["errors"][0].take()
    }

    pub(crate) async fn register(&self, email: &str, password: &str) -> Session {
        session(&self.ask("", REGISTER, json!({"email": email, "password": password})).await)
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Session {
        session(&self.ask("", LOGIN, json!({"email": email, "password": password})).await)
    }

    /// The ADMIN that the configuration opened.
    pub(crate) async fn admin(&self) -> Session {
        self.login("root@example.com", PASSWORD).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Session {
        session(&self.ask("", REFRESH, json!({"token": token})).await)
    }

    /// Whether a token proves something.
    pub(crate) async fn counts(&self, token: &str) -> bool {
        self.send(token, "{ me { id } }", json!({})).await["errors"].is_null()
    }
}

pub(crate) fn session(value: &Value) -> Session {
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    Session { access: text("accessToken"), refresh: text("refreshToken"), user: value["user"].clone() }
}

pub(crate) const REGISTER: &str = "mutation($email: String!, $password: String!) {
  register(email: $email, password: $password) { accessToken refreshToken expiresIn user { id email role } }
}";

pub(crate) const LOGIN: &str = "mutation($email: String!, $password: String!) {
  login(email: $email, password: $password) { accessToken refreshToken expiresIn user { id email role } }
}";

pub(crate) const REFRESH: &str = "mutation($token: String!) {
  refresh(refreshToken: $token) { accessToken refreshToken expiresIn user { id email role } }
}";

/// The one recorder of this process.
fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| boot::telemetry::metrics().unwrap()).clone()
}

/// Waits until the condition holds, with a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "still not so after {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
