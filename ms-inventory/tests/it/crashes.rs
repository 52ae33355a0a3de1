//! Whatever dies, and wherever: no order is lost, none is answered in two ways, and stock adds up.
//!
//! The steps of a batch are driven one by one with the parts the consumer is made of, and the connection is cut after
//! each, which is all a broker sees of a process that is killed there. Between the statements of the transaction a
//! trigger ends the database's own session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use database::LockWait;
use dev::postgres::{self, Postgres};
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::{Database, Folder, Vhost};
use events::queues;
use futures::StreamExt;
use futures::future::join_all;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use messaging::consumer::{Acknowledges, Limits, answer, decide, settle};
use messaging::outbox::Relay;
use messaging::{Progress, Publisher};
use ms_inventory::events::Created;
use ms_inventory::hold::Reserver;
use tokio::task::{block_in_place, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Customer};
use crate::world::{Instance, World, eventually};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Received,
    Decided,
    Answered,
    Settled,
}

/// Takes three messages through the engine's steps up to this one, and dies.
async fn die_after(step: Step, world: &World, vhost: &Vhost) {
    let connection = Connection::connect(vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let queue = queues::ORDER_CREATED;
    let consumer = channel.basic_consume(queue.into(), "doomed".into(), options, arguments).await.unwrap();
    let batch: Vec<_> = consumer.take(3).map(Result::unwrap).collect().await;
    if step >= Step::Decided {
        let relay = Relay::new(world.connections.clone(), Duration::from_secs(1));
        let reserver = Reserver::new(world.connections.clone());
        let created = Created { reserver, relay, hold_ttl: Duration::from_secs(900) };
        let verdicts =
            decide(&created, queue, &batch, LockWait::Usual, Limits::default(), || true, &CancellationToken::new())
                .await
                .unwrap();
        if step >= Step::Answered {
            let publisher = Publisher::open(&connection, "doomed").await.unwrap();
            let decided = batch.into_iter().zip(verdicts.into_iter().flatten()).collect();
            let answered = answer(publisher, queue, decided, Acknowledges::UpTo).await.unwrap();
            if step >= Step::Settled {
                settle(&channel, queue, answered, &Progress::default()).await.unwrap();
            }
        }
    }
    // The channel may be closing by itself already.
    connection.close(200, "died".into()).await.ok();
}

#[tokio::test]
async fn a_death_after_any_step_loses_no_order_and_answers_none_in_two_ways() {
    let steps = [Step::Received, Step::Decided, Step::Answered, Step::Settled];
    let worlds = World::several(steps.len(), || Vhost::create().unwrap()).await;
    join_all(worlds.iter().zip(steps).map(|((world, vhost), step)| a_death_after(step, world, vhost))).await;
}

async fn a_death_after(step: Step, world: &World, vhost: &Vhost) {
    let (plenty, scarce) = (world.product(10).await, world.product(1).await);
    let client = Client::connect(vhost.amqp_url()).await;
    world.start(vhost, &[]).await.stop().await;
    client.create("A", &[(plenty, 1), (scarce, 1)]).await;
    client.create("B", &[(plenty, 1), (scarce, 1)]).await;
    client.publish("order.created", b"poison").await;
    die_after(step, world, vhost).await;
    assert_eq!(world.holds("held").await, i64::from(step >= Step::Decided), "after {step:?}");

    let _instance = world.start(vhost, &[]).await;
    client.create("LAST", &[(plenty, 1)]).await;
    let answers = answers(&client, &["A", "B", "LAST"]).await;
    assert!(answers["A"].contains("StockReserved"), "after {step:?}: {answers:?}");
    assert!(answers["B"].contains("StockRejected"), "after {step:?}: {answers:?}");
    assert_eq!(client.dead_letter().await.data, b"poison", "after {step:?}");
    assert_eq!(world.level(scarce).await.reserved, 1);
    assert_eq!(world.level(plenty).await.reserved, 2);
    world.assert_adds_up().await;
}

/// Waits for an answer to each of these orders, and checks that no order is told two things.
async fn answers(client: &Client, orders: &[&str]) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::<String, String>::new();
    while !orders.iter().all(|order| answers.contains_key(*order)) {
        let answer = client.answer().await;
        let order = answer["order_id"].as_str().unwrap().to_owned();
        let known = answers.entry(order).or_insert_with(|| answer.to_string());
        assert_eq!(*known, answer.to_string(), "one answer");
    }
    answers
}

/// A trigger that ends the session it runs in, the first three times. A sequence counts them, because it is all that
/// survives the rollback.
const DEADLY: &str = "
    create sequence deaths;
    create function die() returns trigger language plpgsql as $$
    begin
        if nextval('deaths') <= 3 then
            perform pg_terminate_backend(pg_backend_pid());
            perform pg_sleep(10);
        end if;
        return null;
    end $$;";

#[tokio::test]
async fn a_session_that_dies_between_two_statements_changes_nothing() {
    let in_statements = [
        ("before the answers are stored", "before insert on holds for each statement execute function die()"),
        ("after the answers are stored", "after insert on holds for each statement execute function die()"),
        ("after the levels are changed", "after update on stock for each statement execute function die()"),
        ("after a due hold is ended", "after update on holds for each statement execute function die()"),
        ("after its event is stored", "after insert on outbox for each statement execute function die()"),
    ];
    let at_commit = "create constraint trigger deadly after insert on holds
                     deferrable initially deferred for each row execute function die()";
    let mut triggers =
        in_statements.map(|(place, trigger)| (place, format!("create trigger deadly {trigger}"))).to_vec();
    triggers.push(("at the commit", at_commit.to_owned()));
    let worlds = World::several(triggers.len(), || Vhost::create().unwrap()).await;
    let deaths = worlds.iter().zip(&triggers);
    join_all(deaths.map(|((world, vhost), (place, trigger))| deadly(trigger, place, world, vhost))).await;
}

async fn deadly(trigger: &str, place: &str, world: &World, vhost: &Vhost) {
    let product = world.product(5).await;
    let client = Client::connect(vhost.amqp_url()).await;
    let instance = world.start(vhost, &["--sweep-period-ms", "3600000"]).await;
    client.create("OLD", &[(product, 5)]).await;
    answers(&client, &["OLD"]).await;
    world.let_holds_run_out().await;
    sqlx::raw_sql(DEADLY).execute(&world.pool).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&world.pool).await.unwrap();

    client.create("NEW", &[(product, 4)]).await;
    client.create("SHORT", &[(product, 4)]).await;
    let answers = answers(&client, &["NEW", "SHORT", "OLD"]).await;
    assert!(answers["NEW"].contains("StockReserved"), "{place}: {answers:?}");
    assert!(answers["SHORT"].contains("StockRejected"), "{place}: {answers:?}");
    let deaths: i64 = sqlx::query_scalar("select last_value from deaths").fetch_one(&world.pool).await.unwrap();
    assert!(deaths > 3, "{place}: the trigger is where it should be");
    assert_eq!(world.level(product).await.reserved, 4, "{place}");
    world.assert_adds_up().await;
    instance.stop().await;
}

/// Two instances under load. One after the other is killed, the broker cuts every connection, then both servers are
/// killed and frozen in turn; when all is over, each order has one answer and stock adds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_of_instances_database_and_broker_under_load_lose_nothing() {
    const ORDERS: usize = 1_500;
    const STOCK: i64 = 1_000;
    let folder = Folder::create("crashes").unwrap();
    let mut server = Postgres::start(&folder.path().join("postgres"), postgres::Options::TEST).unwrap();
    let mut broker = RabbitMq::start(&folder.path().join("rabbitmq"), rabbitmq::Options::TEST).unwrap();
    let world = World::on(Database::create_on(&server.url(), "inventory").unwrap()).await;
    let (a, b) = (world.product(STOCK).await, world.product(10 * STOCK).await);
    let (database_url, amqp_url) = (world.database.url().to_owned(), broker.url());
    let start = async || Instance::start_unready(&database_url, &amqp_url, &[]).await;
    let mut instances = vec![start().await, start().await];
    let customer = Customer::connect(&amqp_url).await;

    let placed = AtomicUsize::new(0);
    let placing = async {
        for n in 0..ORDERS {
            customer.place(&format!("ORD-{n}"), &[(a, 1), (b, 1)]).await;
            placed.store(n, Ordering::Relaxed);
        }
    };
    let management = broker.management();
    let breaking = async {
        for round in 0..3 {
            eventually("the load goes on", async || placed.load(Ordering::Relaxed) > 100 + 400 * round).await;
            for _ in 0..2 {
                instances.remove(0).kill().await;
                instances.push(start().await);
                // A broker that is not back yet has no connection to cut.
                block_in_place(|| management.close_connections("/", "cut by a test")).ok();
            }
            let broken = spawn_blocking(move || break_servers(round, server, broker));
            (server, broker) = broken.await.unwrap();
        }
        (server, broker)
    };
    let ((), _servers) = tokio::join!(placing, breaking);

    let mut answers = BTreeMap::<String, BTreeSet<String>>::new();
    while answers.len() < ORDERS {
        let answer = customer.answer().await;
        answers.entry(answer["order_id"].to_string()).or_default().insert(answer.to_string());
    }
    assert!(answers.values().all(|told| told.len() == 1), "an order was told two things: {answers:?}");
    let reserved = answers.values().flatten().filter(|answer| answer.contains("StockReserved")).count();
    assert_eq!(reserved as i64, STOCK);
    assert_eq!(world.level(a).await.reserved, STOCK);
    world.assert_adds_up().await;
    for instance in instances {
        instance.stop().await;
    }
    // While its server still runs.
    drop(world);
}

fn break_servers(round: usize, mut server: Postgres, mut broker: RabbitMq) -> (Postgres, RabbitMq) {
    match round {
        0 => {
            server.restart().unwrap();
            broker.restart().unwrap();
        }
        1 => {
            server.pause();
            broker.restart().unwrap();
            server.resume();
        }
        _ => {
            broker.pause();
            server.restart().unwrap();
            broker.resume();
        }
    }
    (server, broker)
}
