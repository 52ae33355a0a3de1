//! The engine's transactions, each on a database of its own.

use std::sync::Arc;
use std::time::Duration;

use database::LockWait;
use events::inventory::{ReleaseCause, Shortage};
use ms_inventory::hold::{self, Answer, Order, Reserver};
use ms_inventory::settlement::{self, Ending};
use ms_inventory::stock::{Level, Lines, Request};
use tokio::sync::Barrier;

use crate::settling::complete;
use crate::world::{World, eventually, items, order_id};

pub(crate) const TTL: Duration = Duration::from_secs(900);

pub(crate) fn order(id: impl Into<String>, pairs: &[(i64, i64)]) -> Order {
    Order { id: order_id(id), request: Request::of(&items(pairs)) }
}

pub(crate) async fn reserve(world: &World, orders: &[Order]) -> Vec<Answer> {
    world.reserver.reserve(LockWait::Usual, orders, TTL).await.unwrap().answers
}

/// Ends orders that will not be fulfilled.
pub(crate) async fn cancel(world: &World, ids: &[&str]) -> Vec<settlement::Answer> {
    let endings: Vec<_> = ids.iter().map(|id| (order_id(*id), Ending::Cancelled)).collect();
    hold::settle(&world.connections, LockWait::Usual, &endings).await.unwrap().answers
}

pub(crate) fn is_reserved(answer: &Answer) -> bool {
    matches!(answer, Answer::Reserved { .. })
}

pub(crate) fn reason(answer: &Answer) -> &str {
    match answer {
        Answer::Rejected { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_lines_of_an_order_are_held_or_none() {
    let world = World::new().await;
    let (plenty, scarce) = (world.product(10).await, world.product(1).await);
    let orders =
        [order("A", &[(plenty, 3), (scarce, 1)]), order("B", &[(plenty, 3), (scarce, 1)]), order("C", &[(plenty, 3)])];
    let answers = reserve(&world, &orders).await;
    assert_eq!(answers.iter().map(is_reserved).collect::<Vec<_>>(), [true, false, true]);
    let shortages = vec![Shortage { product_id: scarce, requested: 1, available: 0 }];
    assert_eq!(answers[1], Answer::Rejected { reason: "Insufficient stock".into(), shortages });
    assert_eq!(world.level(plenty).await, Level { on_hand: 10, reserved: 6 });
    assert_eq!(world.level(scarce).await, Level { on_hand: 1, reserved: 1 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_repeated_order_gets_the_same_answer() {
    let world = World::new().await;
    let product = world.product(2).await;
    let orders = [
        order("HELD", &[(product, 2)]),
        order("HELD", &[(product, 1), (product, 1)]),
        order("SHORT", &[(product, 1)]),
        order("ABSURD", &[(product, -1)]),
        order("UNKNOWN", &[(i64::MAX, 1)]),
        order("EMPTY", &[]),
    ];
    let first = reserve(&world, &orders).await;
    assert_eq!(first[0], first[1], "within a batch");
    assert!(is_reserved(&first[0]));
    assert_eq!(reason(&first[2]), "Insufficient stock");
    assert_eq!(reason(&first[4]), format!("Unknown product {}", i64::MAX));

    assert_eq!(reserve(&world, &orders).await, first, "in a later batch");
    cancel(&world, &["HELD"]).await;
    let later = reserve(&world, &orders).await;
    assert_eq!(later[2..], first[2..], "even when the stock is there now");
    assert_eq!(world.level(product).await, Level { on_hand: 2, reserved: 0 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_repeated_order_is_told_how_it_stands_now() {
    let world = World::new().await;
    let product = world.product(100).await;
    let ids = ["HELD", "SOLD", "CANCELLED", "REFUNDED", "EXPIRED", "OVERDUE", "REJECTED"];
    let asked = ids.map(|id| order(id, &[(product, if id == "REJECTED" { 1_000 } else { 1 })]));
    let first = reserve(&world, &asked).await;
    let end = async |id: &str, ending: Ending| {
        hold::settle(&world.connections, LockWait::Usual, &[(order_id(id), ending)]).await.unwrap();
    };
    end("SOLD", Ending::Completed(None)).await;
    end("CANCELLED", Ending::Cancelled).await;
    end("REFUNDED", Ending::Completed(None)).await;
    end("REFUNDED", Ending::Refunded { restock: true }).await;
    let let_expire = async |id: &'static str| {
        let statement = "update holds set expires_at = now() - interval '1 second' where order_id = $1";
        sqlx::query(statement).bind(id).execute(&world.pool).await.unwrap();
    };
    let_expire("EXPIRED").await;
    assert_eq!(hold::expire_due(&world.connections).await.unwrap(), 1);
    // Nobody has noticed this one yet.
    let_expire("OVERDUE").await;

    let lines = Lines::of(&items(&[(product, 1)]));
    let released = |cause| Answer::Released { lines: lines.clone(), cause };
    let told = [
        first[0].clone(),
        Answer::Reserved { lines: lines.clone(), expires_at: None },
        released(ReleaseCause::Cancelled),
        released(ReleaseCause::Refunded),
        released(ReleaseCause::Expired),
        released(ReleaseCause::Expired),
        first[6].clone(),
    ];
    assert_eq!(reserve(&world, &asked).await, told);
    assert_eq!(reserve(&world, &asked).await, told, "and again");
    // Held: one; sold: one.
    assert_eq!(world.level(product).await, Level { on_hand: 99, reserved: 1 });
    world.assert_adds_up().await;
    let news: i64 =
        sqlx::query_scalar("select count(*) from outbox where key = 'OVERDUE'").fetch_one(&world.pool).await.unwrap();
    assert_eq!(news, 1, "that its time ran out is told to everybody");
}

#[tokio::test]
async fn the_same_id_with_other_items_is_a_conflict_and_changes_nothing() {
    let world = World::new().await;
    let product = world.product(5).await;
    let answers = reserve(&world, &[order("A", &[(product, 1)]), order("A", &[(product, 2)])]).await;
    assert!(is_reserved(&answers[0]));
    assert_eq!(answers[1], Answer::Conflict);
    assert_eq!(reserve(&world, &[order("A", &[(product, 3)])]).await, [Answer::Conflict]);
    assert_eq!(world.level(product).await.reserved, 1);
}

#[tokio::test]
async fn the_database_itself_refuses_to_oversell() {
    let world = World::new().await;
    let product = world.product(5).await;
    for statement in
        ["update stock set reserved = 6", "update stock set reserved = -1", "update stock set on_hand = -1"]
    {
        let error = sqlx::query(statement).execute(&world.pool).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().constraint(), Some("no_oversell"), "{statement}");
    }
    assert_eq!(world.level(product).await, Level { on_hand: 5, reserved: 0 });
}

#[tokio::test]
async fn a_cancelled_order_frees_its_stock_once() {
    let world = World::new().await;
    let (a, b) = (world.product(5).await, world.product(5).await);
    reserve(&world, &[order("A", &[(a, 2), (b, 3)]), order("B", &[(a, 1)])]).await;
    let first = cancel(&world, &["A"]).await.remove(0);
    let lines = Lines::of(&items(&[(a, 2), (b, 3)]));
    assert_eq!(first, settlement::Answer::Released(lines, ReleaseCause::Cancelled));
    let again = cancel(&world, &["A", "A"]).await;
    assert_eq!(again, [first.clone(), first], "a repeated cancellation tells the same again");
    assert_eq!(world.level(a).await.reserved, 1);
    assert_eq!(world.level(b).await.reserved, 0);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_cancellation_that_overtakes_its_creation_rejects_it() {
    let world = World::new().await;
    let product = world.product(5).await;
    assert_eq!(cancel(&world, &["A"]).await, [settlement::Answer::Nothing]);
    for items in [&[(product, 1)], &[(product, 2)]] {
        let answers = reserve(&world, &[order("A", items)]).await;
        assert_eq!(reason(&answers[0]), "Order was cancelled");
    }
    assert_eq!(world.level(product).await.reserved, 0);
}

#[tokio::test]
async fn expired_stock_is_sellable_in_the_same_instant() {
    let world = World::new().await;
    let (a, b) = (world.product(3).await, world.product(3).await);
    reserve(&world, &[order("OLD", &[(a, 3), (b, 3)])]).await;
    assert_eq!(reason(&reserve(&world, &[order("EARLY", &[(b, 1)])]).await[0]), "Insufficient stock");
    world.let_holds_run_out().await;

    // The new order is short of `b` only, and the due hold has `a` as well.
    let reserved = world.reserver.reserve(LockWait::Usual, &[order("NEW", &[(b, 2)])], TTL).await.unwrap();
    assert!(is_reserved(&reserved.answers[0]));
    assert_eq!(reserved.expired, 1);
    assert_eq!(world.level(a).await.reserved, 0);
    assert_eq!(world.level(b).await.reserved, 2);
    let told: Vec<(String, String)> =
        sqlx::query_as("select event, key from outbox").fetch_all(&world.pool).await.unwrap();
    assert_eq!(told, [("StockReleased".to_owned(), "OLD".to_owned())]);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn expiry_of_more_holds_than_one_statement_takes_still_fills_the_order() {
    let world = World::new().await;
    let product = world.product(1_200).await;
    let ones: Vec<Order> = (0..1_200).map(|n| order(format!("OLD-{n}"), &[(product, 1)])).collect();
    assert!(reserve(&world, &ones).await.iter().all(is_reserved));
    world.let_holds_run_out().await;
    let reserved = world.reserver.reserve(LockWait::Usual, &[order("NEW", &[(product, 1_200)])], TTL).await.unwrap();
    assert!(is_reserved(&reserved.answers[0]));
    assert_eq!(reserved.expired, 1_200);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_order_that_fits_takes_nothing_from_those_whose_time_ran_out() {
    let world = World::new().await;
    let product = world.product(5).await;
    reserve(&world, &[order("OLD", &[(product, 1)])]).await;
    world.let_holds_run_out().await;
    let reserved = world.reserver.reserve(LockWait::Usual, &[order("NEW", &[(product, 4)])], TTL).await.unwrap();
    assert!(is_reserved(&reserved.answers[0]));
    assert_eq!(reserved.expired, 0);
    assert_eq!(hold::expire_due(&world.connections).await.unwrap(), 1);
    assert_eq!(hold::expire_due(&world.connections).await.unwrap(), 0);
    assert_eq!(world.level(product).await.reserved, 4);
    world.assert_adds_up().await;
}

/// Orders for (a, b) and (b, a), cancellations, payments and expiries of the same products, all at once: nobody waits for each
/// other in a circle. PostgreSQL would end a deadlock with an error after a second, and the call would fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn storms_over_the_same_products_never_deadlock() {
    const TASKS: usize = 8;
    const ROUNDS: usize = 25;
    let world = Arc::new(World::new().await);
    let (a, b) = (world.product(40).await, world.product(40).await);
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks = (0..TASKS).map(|task| {
        let (world, barrier) = (world.clone(), barrier.clone());
        // Of its own, as another instance has one: one reserver takes batches one after the other.
        let reserver = Reserver::new(world.connections.clone());
        tokio::spawn(async move {
            barrier.wait().await;
            for round in 0..ROUNDS {
                let ids: Vec<String> = (0..4).map(|n| format!("{task}-{round}-{n}")).collect();
                let lines = if task % 2 == 0 { [(a, 1), (b, 1)] } else { [(b, 1), (a, 1)] };
                let orders: Vec<Order> = ids.iter().map(|id| order(id.as_str(), &lines)).collect();
                reserver.reserve(LockWait::Usual, &orders, Duration::from_millis(50)).await.unwrap();
                match task % 4 {
                    0 => drop(cancel(&world, &[&ids[0], &ids[3]]).await),
                    2 => drop(complete(&world, &[(&ids[1], &lines), (&ids[3], &lines)]).await),
                    1 => drop(hold::expire_due(&world.connections).await.unwrap()),
                    _ => (),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    world.assert_adds_up().await;
    world.let_holds_run_out().await;
    while hold::expire_due(&world.connections).await.unwrap() > 0 {}
    assert_eq!(world.level(a).await.reserved, 0);
    assert!(world.level(a).await.on_hand < 40, "nothing was sold");
    world.assert_adds_up().await;
}

/// Two instances that are sent the same orders in other orders. Each would have what the other waits for, and the database
/// would end one of them as a deadlock.
#[tokio::test]
async fn the_same_orders_in_any_order_are_stored_without_a_deadlock() {
    let world = World::new().await;
    let mut meanwhile = world.pool.begin().await.unwrap();
    sqlx::query("insert into holds (order_id, status, reason) values ('b', 'rejected', 'test')")
        .execute(&mut *meanwhile)
        .await
        .unwrap();
    // Of another product each, so that no stock lock orders them: only the id can.
    let [one, other] = [world.product(3).await, world.product(3).await];
    let store = async |ids: [&str; 3], product| {
        let orders = ids.map(|id| order(id, &[(product, 1)]));
        Reserver::new(world.connections.clone())
            .reserve(LockWait::Usual, &orders, TTL)
            .await
            .expect("no deadlock")
            .answers
            .len()
    };
    let letting_go = async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() == 2
        })
        .await;
        meanwhile.rollback().await.unwrap();
    };
    let stored = tokio::join!(store(["a", "b", "c"], one), store(["c", "b", "a"], other), letting_go);
    assert_eq!((stored.0, stored.1), (3, 3));
    assert_eq!(world.holds("held").await, 3);
    world.assert_adds_up().await;
}

/// The same orders in opposite order from many sides at once, some with other items: each id has one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_orders_from_many_sides_get_one_answer_each() {
    const TASKS: usize = 6;
    let world = Arc::new(World::new().await);
    let products = [world.product(50).await, world.product(50).await, world.product(50).await];
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks = (0..TASKS).map(|task| {
        let (reserver, barrier) = (Reserver::new(world.connections.clone()), barrier.clone());
        tokio::spawn(async move {
            // Different products for the same id, so that no stock lock orders them: only the id can.
            let mut orders: Vec<Order> =
                (0..100).map(|n| order(format!("ORD-{n}"), &[(products[task % 3], 1)])).collect();
            if task % 2 == 1 {
                orders.reverse();
            }
            barrier.wait().await;
            let answers = reserver.reserve(LockWait::Usual, &orders, TTL).await.unwrap().answers;
            orders.into_iter().zip(answers).map(|(order, answer)| (order.id, answer)).collect::<Vec<_>>()
        })
    });
    let mut answers = std::collections::BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        for (id, answer) in task.await.unwrap() {
            if answer != Answer::Conflict {
                let known = answers.entry(id).or_insert_with(|| answer.clone());
                assert_eq!(*known, answer);
            }
        }
    }
    assert_eq!(answers.len(), 100);
    assert_eq!(world.holds("held").await + world.holds("rejected").await, 100);
    world.assert_adds_up().await;
}
