//! TLS between all that talk to each other, with certificates of an authority of our own.

use dev::log;
use dev::postgres::{self, Postgres};
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::Folder;
use dev::tls::TlsFiles;
use dev::{psql, workspace};

use crate::authority::Authority;
use crate::health::{confirmed, placed, product};
use crate::service::{Service, eventually};
use crate::shop::{ServerUrls, Services, services};

/// On servers of its own, because the others speak no TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_trusts_the_authority_talks_over_tls_and_whoever_does_not_says_why() {
    let folder = Folder::create("tls").unwrap();
    let file = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        path.display().to_string()
    };
    let authority = Authority::new("ours");
    let (ours, other) = (file("ours.pem", &authority), file("other.pem", &Authority::new("other")));
    let (certificate, key) = authority.issue(folder.path());
    let tls = Some(TlsFiles { certificate: certificate.clone(), key: key.clone() });
    let options = postgres::Options { tls: tls.clone(), ..postgres::Options::TEST };
    let server = Postgres::start(&folder.path().join("postgres"), options).unwrap();
    psql::execute_file(&server.url(), &workspace::root().unwrap().join("deploy/postgres-init.sql")).unwrap();
    let options = rabbitmq::Options { tls, ..rabbitmq::Options::TEST };
    let broker = RabbitMq::start(&folder.path().join("rabbitmq"), options).unwrap();
    assert!(broker.url().starts_with("amqps://"));

    let database = |name: &str, authority: &str| {
        let port = server.port();
        format!("postgres://{name}:{name}@127.0.0.1:{port}/{name}?sslmode=verify-full&sslrootcert={authority}")
    };
    let open = |databases: &str, brokers: &str, folder: &Folder| {
        let servers = ServerUrls {
            inventory_database: &database("inventory", databases),
            orders_database: &database("orders", databases),
            users_database: &database("users", databases),
            inventory_amqp: &broker.url(),
            orders_amqp: &broker.url(),
        };
        let settings = [
            ("AMQP_CA_FILE", brokers),
            ("INVENTORY_CA_FILE", &ours),
            ("TLS_CERT_FILE", certificate.to_str().unwrap()),
            ("TLS_KEY_FILE", key.to_str().unwrap()),
        ];
        let Services { mut inventory, mut orders, .. } = services(&servers, &settings, folder);
        inventory.spawn();
        orders.spawn();
        (inventory, orders)
    };
    let (mut inventory, mut orders) = open(&ours, &ours, &folder);
    inventory.up().await;
    // The catalogue is filled over HTTPS.
    orders.up().await;
    let product = product(&inventory).await;
    confirmed(&orders, &placed(&orders, &product).await).await;
    for service in ["ms-inventory", "ms-orders"] {
        let encrypted = format!(
            "select count(*) > 0 and bool_and(ssl)
             from pg_stat_ssl join pg_stat_activity using (pid) where application_name = '{service}'"
        );
        assert_eq!(psql::execute(&server.url(), &[&encrypted]).unwrap().trim(), "t", "{service}");
    }
    inventory.stop().await;
    orders.stop().await;

    for (dependency, databases, brokers) in [("postgres", &other, &ours), ("rabbitmq", &ours, &other)] {
        let folder = Folder::create("mistrust").unwrap();
        let (inventory, orders) = open(databases, brokers, &folder);
        for (service, program) in [(&inventory, "ms-inventory"), (&orders, "ms-orders")] {
            eventually(&format!("{dependency} is not trusted"), async || mistrusts(service, dependency).await).await;
            let log = log::tail(&folder.path().join(format!("logs/{program}.log")), 40);
            assert!(log.contains("invalid peer certificate: UnknownIssuer"), "{log}");
        }
    }
}

/// Whether a service says of a dependency that its certificate is of nobody it trusts.
async fn mistrusts(service: &Service, dependency: &str) -> bool {
    let Some((status, health)) = service.get("/health").await else { return false };
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    let reason = health["dependencies"][dependency]["reason"].as_str().unwrap_or_default();
    status == 503 && reason.contains("invalid peer certificate: UnknownIssuer")
}
