//! Orders that are asked for again after their holds have changed.

use std::collections::HashMap;
use std::sync::Arc;

use database::{Bounds, LockWait, Pool};
use dev::testing::Vhost;
use events::inventory::ReleaseCause;
use ms_inventory::hold::{self, Answer, Order, Reserver};
use ms_inventory::settlement::Ending;
use ms_inventory::stock::Level;
use serde_json::json;
use tokio::sync::Barrier;

use crate::client::Client;
use crate::holds::{TTL, cancel, is_reserved, order, reason, reserve};
use crate::settling::{complete, executions};
use crate::world::{World, order_id};

/// The hold of one order runs out, and nobody has noticed.
async fn let_run_out(world: &World, id: &str) {
    let past = "update holds set expires_at = now() - interval '1 second' where order_id = $1";
    sqlx::query(past).bind(id).execute(&world.pool).await.unwrap();
}

#[tokio::test]
async fn a_repeated_order_is_told_by_the_contract_how_it_stands() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    let product = world.product(10).await;
    let client = Client::connect(vhost.amqp_url()).await;
    // The sweeper is not to come before the repetition.
    let _instance = world.start(&vhost, &["--sweep-period-ms", "3600000"]).await;
    let ids = ["HELD", "SOLD", "CANCELLED", "REFUNDED", "OVERDUE", "REJECTED"];
    let mut first = HashMap::new();
    for id in ids {
        client.create(id, &[(product, if id == "REJECTED" { 100 } else { 1 })]).await;
        first.insert(id, client.answer().await);
    }
    let settle = async |id: &str, ending| {
        hold::settle(&world.connections, LockWait::Usual, &[(order_id(id), ending)]).await.unwrap();
    };
    settle("SOLD", Ending::Completed(None)).await;
    settle("CANCELLED", Ending::Cancelled).await;
    settle("REFUNDED", Ending::Completed(None)).await;
    settle("REFUNDED", Ending::Refunded { restock: true }).await;
    let_run_out(&world, "OVERDUE").await;

    let items = json!([{"product_id": product, "quantity": 1}]);
    let released =
        |id: &str, cause: &str| json!({"event": "StockReleased", "order_id": id, "items": items, "cause": cause});
    for (id, told) in [
        ("HELD", first["HELD"].clone()),
        ("SOLD", json!({"event": "StockReserved", "order_id": "SOLD", "items": items})),
        ("CANCELLED", released("CANCELLED", "cancelled")),
        ("REFUNDED", released("REFUNDED", "refunded")),
        ("REJECTED", first["REJECTED"].clone()),
    ] {
        client.create(id, &[(product, if id == "REJECTED" { 100 } else { 1 })]).await;
        assert_eq!(client.answer().await, told);
    }
    // To whoever asked, and by the outbox to whoever minds when holds end: both say the same.
    client.create("OVERDUE", &[(product, 1)]).await;
    for _ in 0..2 {
        assert_eq!(client.answer().await, released("OVERDUE", "expired"));
    }
    client.assert_nothing_more_but("MARKER").await;
    world.assert_adds_up().await;
}

/// The stock of a hold that ran out unnoticed is there for an order of the same batch.
#[tokio::test]
async fn a_repetition_whose_time_is_up_leaves_its_stock_to_its_neighbours() {
    let world = World::new().await;
    let (a, b) = (world.product(1).await, world.product(1).await);
    reserve(&world, &[order("OLD", &[(a, 1), (b, 1)])]).await;
    let_run_out(&world, "OLD").await;
    let batch = [order("OLD", &[(a, 1), (b, 1)]), order("NEW", &[(a, 1)])];
    let reserved = world.reserver.reserve(LockWait::Usual, &batch, TTL).await.unwrap();
    assert!(matches!(reserved.answers[0], Answer::Released { cause: ReleaseCause::Expired, .. }));
    assert!(is_reserved(&reserved.answers[1]));
    assert_eq!(reserved.expired, 1);
    assert_eq!(world.level(a).await, Level { on_hand: 1, reserved: 1 });
    assert_eq!(world.level(b).await, Level { on_hand: 1, reserved: 0 });
    world.assert_adds_up().await;
}

/// The other items are of a product that the batch locks, those that are held are not.
#[tokio::test]
async fn a_conflict_with_a_hold_whose_time_is_up_is_still_a_conflict() {
    let world = World::new().await;
    let (a, b) = (world.product(1).await, world.product(1).await);
    reserve(&world, &[order("OLD", &[(a, 1)])]).await;
    let_run_out(&world, "OLD").await;
    assert_eq!(reserve(&world, &[order("OLD", &[(b, 1)])]).await, [Answer::Conflict]);
    assert_eq!((world.level(a).await.reserved, world.level(b).await.reserved), (0, 0));
    world.assert_adds_up().await;
}

/// An order that is always short makes each batch look for what has run out, a moment after it has read the repetitions.
/// Holds run out one after the other all the time, some of them between these two.
#[tokio::test]
async fn nobody_is_told_that_a_hold_lives_which_the_same_transaction_has_ended() {
    const HOLDS: usize = 400;
    let world = World::new().await;
    let product = world.product(HOLDS as i64).await;
    let held: Vec<Order> = (0..HOLDS).map(|n| order(format!("ORD-{n:03}"), &[(product, 1)])).collect();
    assert!(reserve(&world, &held).await.iter().all(is_reserved));
    sqlx::query(
        "update holds
         set expires_at = now() + interval '1 second' + make_interval(secs => right(order_id, 3)::int * 0.005)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    for round in 0.. {
        let mut batch = held.clone();
        batch.push(order(format!("SHORT-{round}"), &[(product, 1_000)]));
        let answers = reserve(&world, &batch).await;
        let alive: Vec<String> =
            sqlx::query_scalar("select order_id from holds where status = 'held' order by order_id")
                .fetch_all(&world.pool)
                .await
                .unwrap();
        let told: Vec<&str> = held
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| is_reserved(answer))
            .map(|(order, _)| order.id.as_str())
            .collect();
        assert_eq!(told, alive, "in round {round}");
        assert_eq!(reason(&answers[HOLDS]), "Insufficient stock");
        if alive.is_empty() {
            break;
        }
    }
    world.assert_adds_up().await;
}

/// Repetitions, sweepers and new orders notice the same overdue holds at the same moment: each ends once, and is told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hold_whose_time_is_up_is_ended_once_whoever_notices() {
    const TASKS: usize = 6;
    const HOLDS: usize = 60;
    let world = Arc::new(World::new().await);
    let products = [world.product(20).await, world.product(20).await, world.product(20).await];
    let held: Vec<Order> = (0..HOLDS).map(|n| order(format!("ORD-{n}"), &[(products[n % 3], 1)])).collect();
    assert!(reserve(&world, &held).await.iter().all(is_reserved));
    world.let_holds_run_out().await;
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks = (0..TASKS).map(|task| {
        let (world, barrier, mut batch) = (world.clone(), barrier.clone(), held.clone());
        let reserver = Reserver::new(world.connections.clone());
        tokio::spawn(async move {
            if task % 2 == 1 {
                batch.reverse();
            }
            barrier.wait().await;
            match task % 3 {
                0 => drop(hold::expire_due(&world.connections).await.unwrap()),
                1 => {
                    let new: Vec<Order> = products
                        .iter()
                        .map(|product| order(format!("NEW-{task}-{product}"), &[(*product, 2)]))
                        .collect();
                    assert!(
                        reserver.reserve(LockWait::Usual, &new, TTL).await.unwrap().answers.iter().all(is_reserved)
                    );
                }
                _ => {
                    for answer in reserver.reserve(LockWait::Usual, &batch, TTL).await.unwrap().answers {
                        assert!(matches!(answer, Answer::Released { cause: ReleaseCause::Expired, .. }), "{answer:?}");
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let told: Vec<i64> = sqlx::query_scalar("select count(*) from outbox where event = 'StockReleased' group by key")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(told, [1; HOLDS]);
    assert_eq!(world.holds("expired").await, HOLDS as i64);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn repetitions_take_the_same_number_of_statements_however_many() {
    let world = World::new().await;
    let product = world.product(10_000).await;
    let mut counts = Vec::new();
    for size in [1, 100] {
        // As many of each kind, of which some have run out unnoticed.
        let kinds = ["HELD", "SOLD", "CANCELLED", "EXPIRED", "REJECTED", "OVERDUE"];
        let batch: Vec<Order> = (0..size)
            .flat_map(|n| kinds.map(|kind| format!("{kind}-{size}-{n}")))
            .map(|id| {
                let quantity = if id.starts_with("REJECTED") { 1_000_000 } else { 1 };
                order(id, &[(product, quantity)])
            })
            .collect();
        reserve(&world, &batch).await;
        let of = |kind: &str| {
            batch.iter().map(|order| order.id.as_str()).filter(move |id| id.starts_with(kind)).collect::<Vec<_>>()
        };
        cancel(&world, &of("CANCELLED")).await;
        let lines: &[(i64, i64)] = &[(product, 1)];
        complete(&world, &of("SOLD").iter().map(|id| (*id, lines)).collect::<Vec<_>>()).await;
        for id in of("EXPIRED") {
            let_run_out(&world, id).await;
        }
        while hold::expire_due(&world.connections).await.unwrap() > 0 {}
        for id in of("OVERDUE") {
            let_run_out(&world, id).await;
        }
        let alone = Pool::new(world.database.url().parse().unwrap(), 1, &Bounds::default());
        let reserver = Reserver::new(alone.clone());
        for expired in [size, 0] {
            let before = executions(&alone).await;
            assert_eq!(reserver.reserve(LockWait::Usual, &batch, TTL).await.unwrap().expired, expired);
            counts.push(executions(&alone).await - before);
        }
    }
    // The short way, which finds orders that are known; then lock and read; for what ran out expire it, tell of it, and
    // write the levels. The short way looked at the levels first; the next time it has them.
    assert_eq!(counts, [7, 3, 7, 3]);
    world.assert_adds_up().await;
}
