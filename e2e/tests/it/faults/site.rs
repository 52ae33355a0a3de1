//! The services under test: each of its servers is behind a proxy of its own.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use dev::ports;
use dev::proxy::Proxy;
use dev::testing::{Database, Folder, Vhost};
use reqwest::StatusCode;
use tokio::sync::Mutex;

use super::plan::Plan;
use crate::service::{Api, Service};
use crate::shop::{ServerUrls, Services, services, with_amqp};

/// The settings of all services: the clock of their time-outs is shortened, so that silence of seconds is long. A service
/// ignores what it does not know.
const SETTINGS: &[(&str, &str)] = &[
    ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "2"),
    ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "2"),
    ("DATABASE_LOCK_TIMEOUT_SECONDS", "1"),
    ("DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", "3"),
    ("BATCH_TIMEOUT_SECONDS", "3"),
    ("BATCH_GIVE_BACK_SECONDS", "5"),
    ("DRAIN_TIMEOUT_SECONDS", "10"),
    ("HOLD_TTL_SECONDS", "3600"),
    ("SWEEP_PERIOD_MS", "200"),
    ("OUTBOX_PERIOD_MS", "50"),
    ("PAYMENT_DELAY_SECONDS", "0"),
    ("PAYMENT_PERIOD_MS", "50"),
    ("REASK_AFTER_SECONDS", "3"),
    ("REASK_PERIOD_MS", "300"),
];

/// How a heartbeat is agreed on; a silent connection is given up after two of them.
const AMQP_QUERY: &str = "heartbeat=2";

/// How long a process may take to drain: its own time-out, and what a busy machine adds.
const DRAIN_BOUND: Duration = Duration::from_secs(15);

/// How long a process may take to tell how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Site {
    /// ms-orders, ms-inventory, and where there are two instances the second ms-inventory.
    pub(super) processes: Vec<Mutex<Service>>,
    pub(super) orders: Api,
    pub(super) inventory: Api,
    /// Of ms-inventory and of ms-orders.
    pub(super) amqp: [Proxy; 2],
    /// Of ms-inventory and of ms-orders.
    pub(super) postgres: [Proxy; 2],
    /// Of ms-inventory and of ms-orders.
    pub(super) databases: [Database; 2],
    pub(super) vhost: Vhost,
    environment: Vec<(String, String)>,
    folders: [Folder; 2],
}

impl Site {
    /// Starts all processes. It blocks its thread.
    pub(super) fn open(plan: &Plan) -> Self {
        let databases = ["inventory", "orders"].map(|name| Database::create(name).unwrap());
        let vhost = Vhost::create_for_services().unwrap();
        let folders = [(); 2].map(|()| Folder::create("faults").unwrap());
        let postgres = [(); 2].map(|()| Proxy::start_for(databases[0].url()).unwrap());
        let amqp = [(); 2].map(|()| Proxy::start_for(vhost.amqp_url()).unwrap());
        let [inventory_amqp, orders_amqp] =
            [("ms-inventory", &amqp[0]), ("ms-orders", &amqp[1])].map(|(program, proxy)| {
                format!("{}?{AMQP_QUERY}", proxy.in_front_of(&vhost.amqp_url_of(program).unwrap()))
            });
        let servers = ServerUrls {
            inventory_database: &postgres[0].in_front_of(databases[0].url()),
            orders_database: &postgres[1].in_front_of(databases[1].url()),
            users_database: databases[1].url(),
            inventory_amqp: &inventory_amqp,
            orders_amqp: &orders_amqp,
        };
        let Services { environment, inventory, orders, .. } = services(&servers, SETTINGS, &folders[0]);
        let (orders_api, inventory_api) = ((*orders).clone(), (*inventory).clone());
        let mut processes = vec![orders, inventory];
        if plan.two_instances {
            let port = ports::any().unwrap();
            let mut environment = with_amqp(&environment, &inventory_amqp);
            environment.push(("INVENTORY_PORT".to_owned(), port.to_string()));
            let url = format!("http://127.0.0.1:{port}");
            processes.push(Service::new("ms-inventory", &url, folders[1].path(), &environment, inventory_api.token()));
        }
        processes.iter_mut().for_each(Service::spawn);
        let processes = processes.into_iter().map(Mutex::new).collect();
        let (orders, inventory) = (orders_api, inventory_api);
        Self { processes, orders, inventory, amqp, postgres, databases, vhost, environment, folders }
    }

    /// Waits until all processes have everything they use.
    pub(super) async fn up(&self) {
        for process in &self.processes {
            process.lock().await.up().await;
        }
    }

    /// The processes that do not say that they are ready, each with what it says about what it uses.
    pub(super) async fn not_ready(&self) -> Vec<String> {
        let mut not_ready = Vec::new();
        for process in &self.processes {
            let process = process.lock().await;
            let get = async |path: &str| tokio::time::timeout(HEALTH_TIMEOUT, process.get(path)).await;
            if !matches!(get("/health/ready").await, Ok(Some((StatusCode::OK, _)))) {
                let health = get("/health").await.ok().flatten().map(|(_, health)| health);
                not_ready.push(format!("{} is not ready: {health:?}", process.url));
            }
        }
        not_ready
    }

    /// Stops all processes at the same time. Returns how those stopped that did not do it in order or in time.
    pub(super) async fn drain(&self) -> Vec<String> {
        let draining = self.processes.iter().map(|process| async {
            let (begun, mut process) = (Instant::now(), process.lock().await);
            let status: ExitStatus = process.terminate().await.unwrap();
            let seconds = begun.elapsed().as_secs_f32();
            let is_in_order = status.success() && begun.elapsed() <= DRAIN_BOUND;
            (!is_in_order).then(|| format!("{} stopped after {seconds:.1} s with {status}", process.url))
        });
        futures::future::join_all(draining).await.into_iter().flatten().collect()
    }

    /// The environment of `ms-inventory doctor`, which reads the database without a proxy, and takes its time.
    pub(super) fn environment_of_doctor(&self) -> Vec<(String, String)> {
        let own = [("INVENTORY_DATABASE_URL", self.databases[0].url()), ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "60")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.iter().cloned().chain(own).collect()
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folders[0]
    }

    /// The log of each process.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let logs = [(0, "ms-orders"), (0, "ms-inventory"), (1, "ms-inventory")];
        let paths = logs.map(|(folder, name)| self.folders[folder].path().join("logs").join(format!("{name}.log")));
        paths.into_iter().take(self.processes.len()).collect()
    }
}
