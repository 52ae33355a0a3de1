use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use async_graphql::{EmptySubscription, Enum, ID, InputObject, Object, Schema};
use boot::config::{Environment, Http, LogFormat, Process as Settings};
use boot::health::Health;
use dev::ports;
use dev::process::{Farewell, Process};
use graphql::{Id, Limits};

use super::request;
use crate::ground::{Ground, built};
use crate::http::{Load, Measured};

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The other side: a process that answers createOrder with a constant.
pub(super) struct Constant {
    url: String,
    _process: Process,
}

impl Constant {
    /// Starts it.
    pub(super) fn start(ground: &Ground) -> Result<Self> {
        let port = ports::any()?;
        let mut command = Command::new(built("bench")?);
        command.args(["constant", &port.to_string()]);
        let mut process = Process::spawn(ground.dir(), "constant", command, Farewell::COMMAND)?;
        process.wait_ready(PATIENCE, || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _process: process })
    }

    /// Its base URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Asks it as a shop is asked.
    pub(super) async fn measure(&self, load: Load) -> Result<Measured> {
        load.run(|number| request::body("constant", number), |_, answer| request::check(answer)).await
    }
}

/// Serves the constant by everything a request to ms-orders goes through, except for finding out who asks and for its resolver.
pub async fn serve(port: u16) -> Result<()> {
    let settings = Settings {
        environment: Environment::Development,
        bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        http: Http::default(),
        log_format: LogFormat::Text,
        drain_timeout_seconds: 10,
    };
    boot::telemetry::log(settings.log_format)?;
    let metrics = boot::telemetry::metrics()?;
    let shutdown = boot::shutdown::on_signal()?;
    let routes = graphql::router(Schema::build(Query, Mutation, EmptySubscription), Limits::default());
    let routes = boot::http::router(routes, Health::new(shutdown.clone()), metrics);
    let stopped = shutdown.clone().cancelled_owned();
    let work = async {
        stopped.await;
        Ok(())
    };
    boot::service::start(&settings, port, routes, work, shutdown).await?.ended.await?
}

struct Query;

#[Object]
impl Query {
    async fn version(&self) -> &str {
        "1"
    }
}

struct Mutation;

#[Object]
impl Mutation {
    #[graphql(complexity = "500 + child_complexity")]
    async fn create_order(&self, input: CreateOrderInput) -> Order {
        let CreateOrderInput { items, idempotency_key: _, payment_reference: _ } = input;
        let sum = items.iter().map(|ItemInput { product_id: _, quantity }| quantity).sum::<i32>();
        Order { total: if sum > 0 { "23.98" } else { "0.00" } }
    }
}

#[derive(InputObject)]
struct CreateOrderInput {
    items: Vec<ItemInput>,
    idempotency_key: Option<String>,
    payment_reference: Option<String>,
}

#[derive(InputObject)]
struct ItemInput {
    product_id: Id,
    quantity: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum OrderStatus {
    Pending,
    Confirmed,
}

struct Order {
    total: &'static str,
}

#[Object]
impl Order {
    async fn id(&self) -> ID {
        ID::from("ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV")
    }

    async fn status(&self) -> OrderStatus {
        OrderStatus::Pending
    }

    async fn total(&self) -> &str {
        self.total
    }
}
