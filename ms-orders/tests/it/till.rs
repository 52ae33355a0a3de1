//! Orders that are placed together.

use std::time::Duration;

use database::Bounds;
use dev::proxy::Proxy;
use dev::testing::Vhost;
use futures::future::join_all;
use messaging::Fault;
use messaging::outbox::Relay;
use ms_orders::checkout::Refused;
use ms_orders::order::{self, NewOrder, PlaceError};
use ms_orders::till::Till;
use serde_json::json;
use tokio::time::timeout;

use crate::statements::Statements;
use crate::world::{CREATE, World, eventually, new_order, shop};

fn till(world: &World) -> Till {
    Till::open(&world.connections, &Relay::new(world.connections.clone(), Duration::from_secs(1)), &shop())
}

fn keyed(key: &str, items: &[(i64, i64)]) -> NewOrder {
    NewOrder { idempotency_key: Some(key.into()), ..new_order(items) }
}

#[tokio::test]
async fn orders_placed_together_are_answered_each_for_itself() {
    let world = World::new().await;
    world.sell(&[(1, "10"), (2, "0.35")]).await;
    let before = keyed("before", &[(1, 1)]);
    let till = till(&world);
    let first = till.place(before.clone()).await.unwrap();

    let orders = [
        new_order(&[(1, 2), (2, 1)]),
        new_order(&[(7, 1)]),
        keyed("now", &[(2, 1)]),
        keyed("before", &[(1, 1)]),
        keyed("now", &[(2, 1)]),
        keyed("now", &[(2, 2)]),
        keyed("before", &[(2, 1)]),
        new_order(&[(2, 3)]),
    ];
    let mut conn = world.pool.acquire().await.unwrap();
    let placed = order::place(&mut conn, &orders, &shop()).await.unwrap();
    let total = |at: usize| placed[at].as_ref().unwrap().total.to_string();
    assert_eq!((total(0).as_str(), total(7).as_str()), ("24.42", "1.26"));
    assert_eq!(placed[0].as_ref().unwrap().id, orders[0].id.as_str());
    let refused =
        |at: usize| matches!(&placed[at], Err(PlaceError::Refused(Refused::UnknownProducts(ids))) if *ids == [7]);
    assert!(refused(1), "{:?}", placed[1]);
    assert_eq!(placed[3].as_ref().unwrap(), &first);
    let reused = |at: usize| match &placed[at] {
        Err(PlaceError::KeyReused { order_id }) => order_id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reused(6), first.id);
    // Whichever of the three with one key was stored, all answers are about that one.
    let stored: Vec<String> =
        sqlx::query_scalar("select id from orders where idempotency_key = 'now'").fetch_all(&world.pool).await.unwrap();
    assert_eq!(stored.len(), 1);
    for at in [2, 4, 5] {
        let about = placed[at].as_ref().map_or_else(|_| reused(at), |order| order.id.clone());
        assert_eq!(about, stored[0]);
    }
    assert!(placed[2].is_ok() == placed[4].is_ok() && placed[2].is_ok() != placed[5].is_ok());
    for (table, rows) in [("orders", 4), ("order_lines", 5), ("order_steps", 4), ("outbox", 4)] {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
}

/// Two equal requests under a key whose time is over: one order, and both get it.
#[tokio::test]
async fn a_key_that_is_free_again_is_given_to_one_order() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let mut conn = world.pool.acquire().await.unwrap();
    let old = order::place(&mut conn, &[keyed("K", &[(1, 1)])], &shop()).await.unwrap().remove(0).unwrap();
    sqlx::query("update orders set created_at = now() - interval '25 hours'").execute(&mut *conn).await.unwrap();
    let twice = [keyed("K", &[(1, 3)]), keyed("K", &[(1, 3)])];
    let placed = order::place(&mut conn, &twice, &shop()).await.unwrap();
    let ids: Vec<&str> = placed.iter().map(|placed| placed.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], old.id);
    assert_eq!(world.count("orders").await, 2);
}

#[tokio::test]
async fn an_order_the_database_refuses_fails_alone() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    sqlx::raw_sql("alter table orders add constraint no_poison check (payment_reference <> 'poison')")
        .execute(&world.pool)
        .await
        .unwrap();
    let till = till(&world);
    let order = |n: usize| {
        let payment_reference = Some(if n == 7 { "poison".to_owned() } else { n.to_string() });
        NewOrder { payment_reference, ..new_order(&[(1, 1)]) }
    };
    let placed = join_all((0..20).map(|n| till.place(order(n)))).await;
    for (n, placed) in placed.iter().enumerate() {
        assert_eq!(placed.is_ok(), n != 7, "{n}: {placed:?}");
    }
    assert_eq!((world.count("orders").await, world.count("outbox").await), (19, 19));
}

#[tokio::test]
async fn orders_that_wait_in_vain_for_a_lock_are_each_told_to_try_again() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let timeouts =
        |lock, statement| ["--database-lock-timeout-seconds", lock, "--database-statement-timeout-seconds", statement];
    let lock_ends_first = world.start_without_broker(&vhost, &timeouts("1", "10")).await;
    let statement_ends_first = world.start_without_broker(&vhost, &timeouts("10", "1")).await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("lock table orders in share mode").execute(&mut *lock).await.unwrap();
    let input = json!({"input": {"items": [{"productId": "1", "quantity": 1}]}});
    for (instance, message) in [
        (&lock_ends_first, "others are changing the same; try again"),
        (&statement_ends_first, "the database took too long; try again"),
    ] {
        for refusal in join_all((0..5).map(|_| instance.refusal(CREATE, input.clone()))).await {
            assert_eq!(refusal["extensions"]["code"], "CONFLICT", "{refusal}");
            assert_eq!(refusal["message"], message);
        }
    }
    lock.rollback().await.unwrap();
    assert_eq!(world.count("orders").await, 0);
    lock_ends_first.stop().await;
    statement_ends_first.stop().await;
}

#[tokio::test]
async fn connections_that_are_gone_cost_no_order() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let till = till(&world);
    let open = join_all((0..5).map(|_| world.pool.acquire())).await;
    drop(open);
    let others = "select pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query(others).execute(&world.pool).await.unwrap();
    till.place(new_order(&[(1, 1)])).await.unwrap();
}

/// Everybody waits behind an order whose connection has gone silent.
#[tokio::test]
async fn a_connection_that_has_gone_silent_is_not_waited_for_longer_than_a_statement_may_take() {
    const WITHIN: Duration = Duration::from_secs(20);
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let proxy = Proxy::start_for(world.database.url()).unwrap();
    let url = proxy.in_front_of(world.database.url());
    let connections = database::Database::open(&url.into(), "test", &Bounds::default()).unwrap().requests;
    let relay = Relay::new(connections.clone(), Duration::from_secs(1));
    let till = Till::open(&connections, &relay, &shop());
    till.place(new_order(&[(1, 1)])).await.unwrap();
    // A connection that was used a moment ago is not asked whether it still works.
    proxy.silence_established();
    let late = timeout(WITHIN, till.place(new_order(&[(1, 1)]))).await.expect("an answer");
    let is_late = |fault: &Fault| matches!(fault, Fault::TimedOut(_));
    assert!(late.as_ref().is_ok() || matches!(&late, Err(PlaceError::Fault(fault)) if is_late(fault)), "{late:?}");
    timeout(WITHIN, till.place(new_order(&[(1, 1)]))).await.expect("an answer").unwrap();
}

#[tokio::test]
async fn orders_take_the_same_number_of_statements_however_many() {
    let world = World::new().await;
    world.sell(&[(1, "1"), (2, "2")]).await;
    let mut conn = world.pool.acquire().await.unwrap();
    let statements = Statements::listen();
    let mut counts = Vec::new();
    for size in [1, 200] {
        let orders: Vec<NewOrder> = (0..size).map(|_| new_order(&[(1, 1), (2, 1)])).collect();
        statements.heard();
        assert!(order::place(&mut conn, &orders, &shop()).await.unwrap().iter().all(Result::is_ok));
        counts.push(statements.heard().len());
    }
    assert_eq!(counts, [3, 3]);
}

/// Two instances that are sent the same keys in other orders. Each would have what the other waits for, and the database would
/// end one of them as a deadlock.
#[tokio::test]
async fn the_same_keys_in_any_order_are_placed_without_a_deadlock() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let orders = |keys: [&str; 3]| keys.map(|key| keyed(key, &[(1, 1)]));
    let place = async |keys: [&str; 3]| {
        let mut tx = world.connections.begin().await.unwrap();
        let placed = order::place(&mut tx, &orders(keys), &shop()).await;
        tx.commit().await.unwrap();
        placed.expect("no deadlock").len()
    };
    let mut meanwhile = world.pool.begin().await.unwrap();
    order::place(&mut meanwhile, &[keyed("b", &[(1, 1)])], &shop()).await.unwrap();
    let letting_go = async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() == 2
        })
        .await;
        meanwhile.rollback().await.unwrap();
    };
    let placed = tokio::join!(place(["a", "b", "c"]), place(["c", "b", "a"]), letting_go);
    assert_eq!((placed.0, placed.1), (3, 3));
    assert_eq!(world.count("orders").await, 3);
}
