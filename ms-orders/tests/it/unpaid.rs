//! How much one account may have unpaid at once.

use std::pin::pin;
use std::time::Duration;

use auth::{Caller, Role};
use database::{Bounds, Database};
use dev::testing::Vhost;
use events::OrderId;
use futures::future::join_all;
use messaging::outbox::Relay;
use ms_orders::config::{Shop, UnpaidLimits};
use ms_orders::order::{self, NewOrder, OverLimit, PlaceError, What};
use ms_orders::till::Till;
use serde_json::{Value, json};
use sqlx::PgTransaction;
use uuid::Uuid;

use crate::statements::Statements;
use crate::world::{ADMIN, CREATE, World, new_order, shop, token};

const ANN: Caller = Caller { user_id: Uuid::from_u128(7), role: Role::User };
const BOB: Caller = Caller { user_id: Uuid::from_u128(8), role: Role::User };

fn limited(max_unpaid_orders: u32, max_unpaid_units: u32) -> Shop {
    Shop { unpaid: UnpaidLimits { max_unpaid_orders, max_unpaid_units }, ..shop() }
}

fn order_of(caller: Caller, quantity: i64) -> NewOrder {
    NewOrder { caller, ..new_order(&[(1, quantity)]) }
}

/// Places orders together, and tells which of them were placed.
async fn place(world: &World, orders: &[NewOrder], shop: &Shop) -> Vec<Result<order::Order, PlaceError>> {
    let mut tx = world.connections.begin().await.unwrap();
    let placed = order::place(&mut tx, orders, shop).await.unwrap();
    tx.commit().await.unwrap();
    placed
}

async fn unpaid(world: &World, caller: Caller) -> (i64, i64) {
    sqlx::query_as(
        "select count(*), coalesce(sum(units), 0)::bigint
         from orders
         where user_id = $1 and status in ('pending', 'confirmed')",
    )
    .bind(caller.user_id)
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

/// Holds the lock of an account, as another instance does that is slow, or whose connection hangs.
async fn lock<'a>(world: &World, caller: Caller) -> PgTransaction<'a> {
    let mut tx = world.pool.begin().await.unwrap();
    let key = i32::try_from(caller.user_id.as_u128()).unwrap();
    sqlx::query("select pg_advisory_xact_lock(x'61636374'::int, $1)").bind(key).execute(&mut *tx).await.unwrap();
    tx
}

#[tokio::test]
async fn an_account_that_is_locked_elsewhere_is_busy_and_hinders_no_other() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let keyed = NewOrder { idempotency_key: Some("k".into()), ..order_of(ANN, 1) };
    let before = place(&world, std::slice::from_ref(&keyed), &limited(2, 0)).await.remove(0).unwrap();
    let lock = lock(&world, ANN).await;
    let admin = Caller { role: Role::Admin, ..ANN };
    let unknown = NewOrder { caller: ANN, ..new_order(&[(7, 1)]) };
    let orders = [order_of(ANN, 1), order_of(BOB, 1), unknown, keyed, order_of(admin, 1), order_of(ANN, 2)];
    let placed = place(&world, &orders, &limited(2, 0)).await;
    assert!(matches!(placed[0], Err(PlaceError::AccountBusy)), "{:?}", placed[0]);
    assert!(placed[1].is_ok(), "another account: {:?}", placed[1]);
    assert!(matches!(placed[2], Err(PlaceError::Refused(_))), "it is refused anyway: {:?}", placed[2]);
    assert_eq!(placed[3].as_ref().unwrap(), &before, "it is repeated");
    assert!(placed[4].is_ok(), "it has no limit: {:?}", placed[4]);
    assert!(matches!(placed[5], Err(PlaceError::AccountBusy)), "{:?}", placed[5]);
    lock.rollback().await.unwrap();
    assert!(place(&world, &[order_of(ANN, 1)], &limited(3, 0)).await[0].is_ok());
    assert_eq!((unpaid(&world, ANN).await.0, unpaid(&world, BOB).await.0), (3, 1));
}

#[tokio::test]
async fn an_order_of_a_locked_account_waits_for_it_and_nobody_waits_with_it() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let relay = Relay::new(world.connections.clone(), Duration::from_secs(1));
    let till = Till::open(&world.connections, &relay, &limited(10, 100));
    let lock = lock(&world, ANN).await;
    let mut of_ann = pin!(till.place(order_of(ANN, 1)));
    // Both are in one batch, because both wait before the till looks for the first time.
    tokio::select! {
        biased;
        placed = &mut of_ann => panic!("the account is locked: {placed:?}"),
        placed = till.place(order_of(BOB, 1)) => drop(placed.unwrap()),
    }
    lock.rollback().await.unwrap();
    of_ann.await.unwrap();
    assert_eq!((unpaid(&world, ANN).await, unpaid(&world, BOB).await), ((1, 1), (1, 1)));
}

#[tokio::test]
async fn whose_account_stays_locked_is_told_to_try_again() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let instance = world.start_without_broker(&vhost, &[]).await;
    let _lock = lock(&world, ANN).await;
    let input = json!({"input": {"items": [{"productId": "1", "quantity": 1}]}});
    let answer = instance.send_as(&token(ANN.user_id, Role::User), CREATE, input.clone()).await;
    assert_eq!(answer["errors"][0]["extensions"], json!({"code": "CONFLICT"}), "{answer}");
    let message = "another request is placing orders for this account; try again";
    assert_eq!(answer["errors"][0]["message"], message);
    let answer = instance.send_as(&token(BOB.user_id, Role::User), CREATE, input).await;
    assert_eq!(answer["errors"], Value::Null);
    assert_eq!(world.count("orders").await, 1);
    instance.stop().await;
}

/// Instances share nothing but the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_place_orders_of_one_account_together_never_exceed_its_limits() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let instances: Vec<Till> = (0..2)
        .map(|_| {
            let pool = Database::open(&world.database.url().into(), "test", &Bounds::default()).unwrap().requests;
            Till::open(&pool, &Relay::new(pool.clone(), Duration::from_secs(1)), &limited(10, 35))
        })
        .collect();
    // Ann reaches the limit of units first, Bob that of orders.
    let orders = (0..120).map(|n| if n % 2 == 0 { order_of(ANN, 4) } else { order_of(BOB, 1) });
    let placed = join_all(orders.enumerate().map(|(n, order)| instances[n / 2 % 2].place(order))).await;
    let (mut by_units, mut by_orders) = (0, 0);
    for placed in &placed {
        match placed {
            Ok(_) => (),
            Err(PlaceError::OverLimit(OverLimit::Units { limit: 35, unpaid: 32, asked: 4 })) => by_units += 1,
            Err(PlaceError::OverLimit(OverLimit::Orders { limit: 10, unpaid: 10 })) => by_orders += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((by_units, by_orders), (60 - 8, 60 - 10));
    assert_eq!((unpaid(&world, ANN).await, unpaid(&world, BOB).await), ((8, 32), (10, 10)));
}

#[tokio::test]
async fn what_is_paid_cancelled_or_refunded_is_unpaid_no_more() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let shop = limited(3, 0);
    let placed = place(&world, &[order_of(ANN, 1), order_of(ANN, 1), order_of(ANN, 1), order_of(ANN, 1)], &shop).await;
    assert_eq!(placed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false]);
    let ids: Vec<OrderId> =
        placed[..3].iter().map(|placed| OrderId::try_from(placed.as_ref().unwrap().id.clone()).unwrap()).collect();
    let refused = async || {
        let placed = place(&world, &[order_of(ANN, 1)], &shop).await.remove(0);
        matches!(placed, Err(PlaceError::OverLimit(OverLimit::Orders { limit: 3, unpaid: 3 })))
    };
    for id in &ids {
        world.confirm(id.as_str(), &shop).await;
    }
    assert!(refused().await, "what is held is not paid yet");
    let cancelled = What::Cancelled { by: ANN.user_id, reason: "no".into() };
    let refunded = What::Refunded { by: ADMIN, reason: "no".into(), restock: true };
    for ends in [vec![What::Paid], vec![cancelled], vec![What::Paid, refunded], vec![What::Declined]] {
        let id =
            sqlx::query_scalar::<_, String>("select id from orders where status = 'confirmed' order by id limit 1");
        let id = OrderId::try_from(id.fetch_one(&world.pool).await.unwrap()).unwrap();
        for what in ends {
            world.happens(&id, what, &shop).await;
        }
        let next = place(&world, &[order_of(ANN, 1)], &shop).await.remove(0).unwrap();
        assert!(refused().await);
        world.confirm(&next.id, &shop).await;
    }
}

#[tokio::test]
async fn a_repeated_request_gets_its_order_although_the_account_is_at_its_limit() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let keyed = |key: &str, quantity| NewOrder { idempotency_key: Some(key.into()), ..order_of(ANN, quantity) };
    let shop = limited(2, 0);
    // The third is the second once more, and counts once.
    let orders = [keyed("a", 1), keyed("b", 2), keyed("b", 2), keyed("c", 1)];
    let placed = place(&world, &orders, &shop).await;
    let ids: Vec<&str> = placed[..3].iter().map(|placed| placed.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, [orders[0].id.as_str(), orders[1].id.as_str(), orders[1].id.as_str()]);
    assert!(matches!(placed[3], Err(PlaceError::OverLimit(_))), "{:?}", placed[3]);

    let again = place(&world, &[keyed("c", 1), keyed("a", 1), keyed("a", 3)], &shop).await;
    assert!(matches!(again[0], Err(PlaceError::OverLimit(_))), "{:?}", again[0]);
    assert_eq!(again[1].as_ref().unwrap().id, ids[0]);
    assert!(matches!(again[2], Err(PlaceError::KeyReused { .. })), "{:?}", again[2]);
    assert_eq!(unpaid(&world, ANN).await, (2, 3));
}

#[tokio::test]
async fn an_admin_has_no_limit_and_0_is_none() {
    let world = World::new().await;
    world.sell(&[(1, "10")]).await;
    let admin = Caller { role: Role::Admin, ..ANN };
    let placed = place(&world, &[order_of(admin, 50), order_of(admin, 50)], &limited(1, 10)).await;
    assert!(placed.iter().all(Result::is_ok), "{placed:?}");
    let orders: Vec<NewOrder> = (0..10).map(|_| order_of(ANN, 1_000_000)).collect();
    assert!(place(&world, &orders, &limited(0, 0)).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn whoever_has_too_much_unpaid_is_told_the_limit() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10")]).await;
    let args = ["--max-unpaid-orders", "2", "--max-unpaid-units", "10", "--payment-delay-seconds", "5"];
    let instance = world.start_without_broker(&vhost, &args).await;
    let ask = async |user: u128, quantity: i64| {
        let input = json!({"input": {"items": [{"productId": "1", "quantity": quantity}]}});
        let token = token(Uuid::from_u128(user), Role::User);
        instance.send_as(&token, CREATE, input).await["errors"].get(0).cloned().unwrap_or_default()
    };
    let mut refused = vec![ask(7, 11).await];
    assert!(ask(7, 9).await.is_null());
    refused.push(ask(7, 2).await);
    assert!(ask(7, 1).await.is_null());
    refused.push(ask(7, 1).await);
    assert!(ask(8, 1).await.is_null(), "another account");

    let told: Vec<_> = refused.iter().map(|error| (&error["message"], &error["extensions"])).collect();
    let limit = |code: &str, constraint: &str, limit: i64, unpaid: i64| json!({"code": code, "constraint": constraint, "limit": limit, "unpaid": unpaid});
    let later = |mut extensions: Value| {
        extensions["retryAfterSeconds"] = json!(5);
        extensions
    };
    let expected = [
        (
            json!("this account has 0 units in unpaid orders, and may have 10: this order asks for 11"),
            limit("CONFLICT", "unpaid_units", 10, 0),
        ),
        (
            json!("this account has 9 units in unpaid orders, and may have 10: this order asks for 2"),
            later(limit("RATE_LIMITED", "unpaid_units", 10, 9)),
        ),
        (
            json!("this account has 2 unpaid orders, and may have 2: wait until some are paid, or cancel some"),
            later(limit("RATE_LIMITED", "unpaid_orders", 2, 2)),
        ),
    ];
    assert_eq!(told, expected.iter().map(|(message, extensions)| (message, extensions)).collect::<Vec<_>>());
    instance.stop().await;
}

#[tokio::test]
async fn limits_cost_two_statements_however_many_orders_and_accounts() {
    let world = World::new().await;
    world.sell(&[(1, "1")]).await;
    let mut conn = world.pool.acquire().await.unwrap();
    let statements = Statements::listen();
    let mut counts = Vec::new();
    for size in [1, 200] {
        let caller = |n| Caller { user_id: Uuid::from_u128(n), role: Role::User };
        let orders: Vec<NewOrder> = (0..size).map(|n| order_of(caller(n), 1)).collect();
        statements.heard();
        assert!(order::place(&mut conn, &orders, &limited(2, 10)).await.unwrap().iter().all(Result::is_ok));
        counts.push(statements.heard().len());
    }
    // Lock, count, read the catalogue, insert, enqueue.
    assert_eq!(counts, [5, 5]);
}
