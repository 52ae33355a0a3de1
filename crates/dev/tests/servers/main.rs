//! Real servers, started, killed, frozen and started again.

mod connection;

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dev::postgres::{self, Postgres};
use dev::process::{self, Farewell, Process};
use dev::process_table::Identity;
use dev::psql;
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::{Database, Folder, Vhost};
use nix::sys::signal::Signal;

use self::connection::Connection;

#[test]
fn committed_rows_survive_a_kill_of_postgres() {
    let folder = Folder::create("dev_postgres").unwrap();
    let mut server = Postgres::start(folder.path(), postgres::Options::TEST).unwrap();
    let url = server.url();
    psql::execute(&url, &["create table kept (x int)", "insert into kept values (1), (2)"]).unwrap();
    server.kill9();
    assert!(psql::execute(&url, &["select 1"]).is_err(), "a killed server answers");
    server.restart().unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(psql::execute(&url, &["select count(*) from kept"]).unwrap(), "2");
}

#[test]
fn a_paused_postgres_answers_once_it_is_resumed() {
    let folder = Folder::create("dev_pause").unwrap();
    let server = Postgres::start(folder.path(), postgres::Options::TEST).unwrap();
    server.pause();
    let mut client = psql::psql(&server.url()).unwrap();
    let mut client = client.args(["--command", "select 1"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.try_wait().unwrap().is_none(), "a paused server answered");
    server.resume();
    assert!(client.wait().unwrap().success());
}

#[test]
fn a_taken_port_makes_postgres_choose_another() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::create("dev_port").unwrap();
    let options = postgres::Options { port: Some(port), ..postgres::Options::TEST };
    let server = Postgres::start(folder.path(), options).unwrap();
    assert_ne!(server.port(), port);
    assert_eq!(psql::execute(&server.url(), &["select 1"]).unwrap(), "1");
}

#[test]
fn a_vhost_survives_a_kill_of_rabbitmq_and_nothing_survives_its_end() {
    let folder = Folder::create("dev_rabbit").unwrap();
    let mut broker = RabbitMq::start(folder.path(), rabbitmq::Options::TEST).unwrap();
    broker.management().create_vhost("kept").unwrap();
    let url = broker.url();
    broker.kill9();
    assert!(broker.management().version().is_err(), "a killed broker answers");
    broker.restart().unwrap();
    assert_eq!(broker.url(), url);
    // Deleting fails unless it is there.
    broker.management().delete_vhost("kept").unwrap();
    let ctl = Command::new("sh").args(["-c", &format!("{} list_vhosts", broker.rabbitmqctl())]).output().unwrap();
    assert!(ctl.status.success(), "{}", String::from_utf8_lossy(&ctl.stderr));

    let processes: Vec<Identity> = ["rabbit", "epmd"].iter().map(|name| recorded(&folder, name).unwrap()).collect();
    assert!(processes.iter().all(Identity::lives));
    drop(broker);
    assert!(!processes.iter().any(Identity::lives));
}

#[test]
fn three_nodes_form_a_cluster_that_outlives_one_of_them() {
    let folder = Folder::create("dev_cluster").unwrap();
    let mut nodes = rabbitmq::cluster(folder.path(), 3).unwrap();
    let names = ["rabbit1@localhost", "rabbit2@localhost", "rabbit3@localhost"];
    assert_eq!(running_nodes(&nodes[0]), names);
    nodes[0].kill9();
    assert!(eventually(|| running_nodes(&nodes[1]) == names[1..]), "{:?}", running_nodes(&nodes[1]));
    nodes[0].restart().unwrap();
    assert!(eventually(|| running_nodes(&nodes[1]) == names), "{:?}", running_nodes(&nodes[1]));
}

fn running_nodes(node: &RabbitMq) -> Vec<String> {
    let mut names = node.management().running_nodes().unwrap_or_default();
    names.sort();
    names
}

fn eventually(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

#[test]
fn a_sweep_stops_what_was_left_behind_and_spares_a_stranger_with_its_number() {
    let folder = Folder::create("dev_sweep").unwrap();
    let farewell = Farewell::new(Signal::SIGTERM, Duration::from_secs(5));
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let left_behind = Process::spawn(folder.path(), "left-behind", sleep, farewell).unwrap();
    let left_identity = Identity::of(left_behind.pid()).unwrap();
    left_behind.detach();

    // A record from before a reboot: the number is alive again, as another process.
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let number = i32::try_from(stranger.id()).unwrap();
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("processes/left-behind.json")).unwrap()).unwrap();
    record["identity"] = serde_json::json!({"pid": number, "started": "long ago"});
    std::fs::write(folder.path().join("processes/stranger.json"), record.to_string()).unwrap();

    process::sweep(folder.path());
    assert!(!left_identity.lives());
    assert!(stranger.try_wait().unwrap().is_none(), "the sweep killed a process it did not start");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_database_of_a_test_is_empty_and_gone_afterwards() {
    let database = Database::create("dev").unwrap();
    let (url, name) = (database.url().to_owned(), database.name().to_owned());
    assert_eq!(psql::execute(&url, &["select current_database()"]).unwrap(), name);
    drop(database);
    let error = psql::execute(&url, &["select 1"]).unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error:#}");
}

#[test]
fn a_vhost_of_a_test_is_gone_afterwards() {
    let vhost = Vhost::create().unwrap();
    let (management, name) = (vhost.management().clone(), vhost.name().to_owned());
    drop(vhost);
    let error = management.delete_vhost(&name).unwrap_err();
    assert!(format!("{error:#}").contains("404"), "{error:#}");
}

#[test]
fn a_connection_is_cut_at_once_and_those_of_other_tests_stay() {
    let (vhost, other) = (Vhost::create().unwrap(), Vhost::create().unwrap());
    let mut cut = Connection::open(vhost.amqp_url()).unwrap();
    let mut spared = Connection::open(other.amqp_url()).unwrap();
    vhost.close_connections().unwrap();
    let farewell = cut.read_frame().unwrap();
    assert!(String::from_utf8_lossy(&farewell).contains("CONNECTION_FORCED - closed by a test"), "{farewell:?}");
    assert!(spared.is_silent_for(Duration::from_millis(300)).unwrap());
}

fn recorded(folder: &Folder, name: &str) -> anyhow::Result<Identity> {
    let file = folder.path().join("processes").join(format!("{name}.json"));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    Ok(serde_json::from_value(record["identity"].clone())?)
}
