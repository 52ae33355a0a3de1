//! How orders end, each test on a database of its own. The rule itself is tested where it stands.

use database::{Bounds, LockWait, Pool};
use events::Item;
use events::inventory::Shortage;
use messaging::Trace;
use ms_inventory::hold;
use ms_inventory::product::{self, Cause};
use ms_inventory::settlement::{Answer, Ending};
use ms_inventory::stock::{Level, Lines, Request};

use crate::holds::{cancel, is_reserved, order, reason, reserve};
use crate::world::{World, items, order_id};

fn lines(pairs: &[(i64, i64)]) -> Lines {
    Lines::of(&items(pairs))
}

async fn settle(world: &World, id: &str, ending: Ending) -> Answer {
    hold::settle(&world.connections, LockWait::Usual, &[(order_id(id), ending)]).await.unwrap().answers.remove(0)
}

/// Ends orders that are paid.
pub(crate) async fn complete(world: &World, orders: &[(&str, &[(i64, i64)])]) -> Vec<Answer> {
    let ending = |pairs: &[(i64, i64)]| Ending::Completed(Some(Request::of(&items(pairs))));
    let endings: Vec<_> = orders.iter().map(|(id, pairs)| (order_id(*id), ending(pairs))).collect();
    hold::settle(&world.connections, LockWait::Usual, &endings).await.unwrap().answers
}

async fn movements(world: &World) -> Vec<(i64, i64, String, Option<String>)> {
    sqlx::query_as(
        "select product_id, quantity, reason::text, order_id from movements where reason <> 'received' order by id",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

fn returned(pairs: &[(i64, i64)], written_off: &[i64]) -> Answer {
    Answer::Returned { lines: lines(pairs), written_off: written_off.to_vec() }
}

const RESTOCK: Ending = Ending::Refunded { restock: true };

#[tokio::test]
async fn a_paid_order_is_sold_and_its_refund_brings_the_goods_back() {
    let world = World::new().await;
    let (a, b) = (world.product(10).await, world.product(5).await);
    let wanted = [(a, 2), (b, 1)];
    reserve(&world, &[order("A", &wanted)]).await;
    for _ in 0..2 {
        assert_eq!(settle(&world, "A", Ending::Completed(None)).await, Answer::Sold(lines(&wanted)));
    }
    assert_eq!(world.level(a).await, Level { on_hand: 8, reserved: 0 });
    assert_eq!(world.level(b).await, Level { on_hand: 4, reserved: 0 });
    assert_eq!((world.holds("committed").await, world.holds("held").await), (1, 0));
    world.assert_adds_up().await;

    assert_eq!(cancel(&world, &["A"]).await, [Answer::Nothing], "it is sold");
    assert_eq!(settle(&world, "A", Ending::Refunded { restock: false }).await, Answer::Nothing);
    for _ in 0..2 {
        assert_eq!(settle(&world, "A", RESTOCK).await, returned(&wanted, &[]));
    }
    assert_eq!(world.level(a).await, Level { on_hand: 10, reserved: 0 });
    assert_eq!(world.holds("returned").await, 1);
    let of = |product, quantity, reason: &str| (product, quantity, reason.to_owned(), Some("A".to_owned()));
    let booked = [of(a, -2, "committed"), of(b, -1, "committed"), of(a, 2, "returned"), of(b, 1, "returned")];
    assert_eq!(movements(&world).await, booked);
    world.assert_adds_up().await;
}

#[tokio::test]
async fn an_order_paid_after_its_time_gets_its_stock_if_it_is_still_there() {
    let world = World::new().await;
    let product = world.product(5).await;
    reserve(&world, &[order("LATE", &[(product, 3)]), order("LATER", &[(product, 2)])]).await;
    world.let_holds_run_out().await;
    assert_eq!(hold::expire_due(&world.connections).await.unwrap(), 2);
    assert_eq!(world.level(product).await.reserved, 0);

    assert_eq!(settle(&world, "LATE", Ending::Completed(None)).await, Answer::Sold(lines(&[(product, 3)])));
    assert!(is_reserved(&reserve(&world, &[order("QUICK", &[(product, 1)])]).await[0]));
    let shortages = vec![Shortage { product_id: product, requested: 2, available: 1 }];
    let gone = Answer::Rejected { reason: "Insufficient stock".into(), shortages };
    for _ in 0..2 {
        assert_eq!(settle(&world, "LATER", Ending::Completed(None)).await, gone);
    }
    cancel(&world, &["QUICK"]).await;
    assert_eq!(settle(&world, "LATER", Ending::Completed(None)).await, gone, "one answer, for ever");
    assert_eq!(reason(&reserve(&world, &[order("LATER", &[(product, 2)])]).await[0]), "Insufficient stock");
    assert_eq!(world.level(product).await, Level { on_hand: 2, reserved: 0 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_payment_takes_what_is_held_for_others_whose_time_is_up() {
    let world = World::new().await;
    let (a, b) = (world.product(3).await, world.product(3).await);
    reserve(&world, &[order("OLD", &[(a, 3), (b, 3)])]).await;
    world.let_holds_run_out().await;
    let new = [(order_id("NEW"), Ending::Completed(Some(Request::of(&items(&[(b, 2)])))))];
    let settled = hold::settle(&world.connections, LockWait::Usual, &new).await.unwrap();
    assert_eq!((settled.answers, settled.expired), (vec![Answer::Sold(lines(&[(b, 2)]))], 1));
    assert_eq!(world.level(a).await, Level { on_hand: 3, reserved: 0 });
    assert_eq!(world.level(b).await, Level { on_hand: 1, reserved: 0 });
    world.assert_adds_up().await;

    // The one whose time is up is among those that are paid: it comes too late for what the first one took.
    reserve(&world, &[order("DUE", &[(a, 2)])]).await;
    world.let_holds_run_out().await;
    let told = complete(&world, &[("FIRST", &[(a, 2)]), ("DUE", &[(a, 2)])]).await;
    assert_eq!(told[0], Answer::Sold(lines(&[(a, 2)])));
    assert!(matches!(&told[1], Answer::Rejected { .. }), "{told:?}");
    world.assert_adds_up().await;
}

/// A shop that charges first: inventory hears of the order when it is paid.
#[tokio::test]
async fn an_order_that_comes_paid_is_sold_in_one_step_or_rejected() {
    let world = World::new().await;
    let product = world.product(3).await;
    let told = complete(&world, &[("A", &[(product, 2)]), ("B", &[(product, 2)]), ("C", &[(product, 1)])]).await;
    assert_eq!(told[0], Answer::Sold(lines(&[(product, 2)])));
    assert!(matches!(&told[1], Answer::Rejected { reason, .. } if reason == "Insufficient stock"), "{told:?}");
    assert_eq!(told[2], Answer::Sold(lines(&[(product, 1)])));
    assert_eq!(world.level(product).await, Level { on_hand: 0, reserved: 0 });

    let again = complete(&world, &[("A", &[(product, 2)]), ("B", &[(product, 2)]), ("C", &[(product, 2)])]).await;
    assert_eq!(again[..2], told[..2]);
    assert_eq!(again[2], Answer::Absurd("conflict: order C asked for other items before".into()));
    let unknown = settle(&world, "D", Ending::Completed(None)).await;
    assert_eq!(unknown, Answer::Absurd("order D is not known, and its items are not told".into()));
    // The creation comes after the payment, and what is sold has no end.
    let late = reserve(&world, &[order("A", &[(product, 2)])]).await.remove(0);
    assert_eq!(late, hold::Answer::Reserved { lines: lines(&[(product, 2)]), expires_at: None });
    assert_eq!(world.level(product).await, Level { on_hand: 0, reserved: 0 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn a_refund_that_overtakes_everything_leaves_nothing_to_sell() {
    let world = World::new().await;
    let product = world.product(3).await;
    let refunded = Answer::Rejected { reason: "Order was refunded".into(), shortages: vec![] };
    assert_eq!(settle(&world, "A", RESTOCK).await, refunded);
    assert_eq!(complete(&world, &[("A", &[(product, 1)])]).await, [refunded]);
    assert_eq!(reason(&reserve(&world, &[order("A", &[(product, 1)])]).await[0]), "Order was refunded");

    reserve(&world, &[order("B", &[(product, 1)])]).await;
    let back = returned(&[(product, 1)], &[]);
    assert_eq!(settle(&world, "B", RESTOCK).await, back);
    assert_eq!(complete(&world, &[("B", &[(product, 1)])]).await, [back], "its payment was given back already");
    assert_eq!(world.level(product).await, Level { on_hand: 3, reserved: 0 });
    world.assert_adds_up().await;
}

#[tokio::test]
async fn goods_of_a_product_that_was_deleted_meanwhile_come_back_and_are_written_off() {
    let world = World::new().await;
    let (kept, deleted) = (world.product(10).await, world.product(5).await);
    let wanted = [(kept, 1), (deleted, 2)];
    reserve(&world, &[order("A", &wanted)]).await;
    settle(&world, "A", Ending::Completed(None)).await;
    let mut tx = world.connections.begin().await.unwrap();
    let cause = Cause { actor: "test".into(), trace: Trace::start() };
    product::delete(&mut tx, deleted, &cause).await.unwrap();
    tx.commit().await.unwrap();

    for _ in 0..2 {
        assert_eq!(settle(&world, "A", RESTOCK).await, returned(&wanted, &[deleted]), "again the same");
    }
    assert_eq!(world.level(kept).await, Level { on_hand: 10, reserved: 0 });
    let of = |product, quantity, reason: &str| (product, quantity, reason.to_owned(), Some("A".to_owned()));
    let booked = movements(&world).await;
    assert_eq!(booked[2], (deleted, -3, "adjusted".to_owned(), None), "with the product");
    assert_eq!(booked[3..], [of(kept, 1, "returned"), of(deleted, 2, "returned"), of(deleted, -2, "adjusted")]);
    world.assert_adds_up().await;

    let mut conn = world.pool.acquire().await.unwrap();
    let sentence = hold::explain(&hold::read::find(&mut conn, "A").await.unwrap().unwrap());
    assert!(sentence.contains(&format!("but for 2 of product {deleted}: deleted meanwhile")), "{sentence}");
}

#[tokio::test]
async fn endings_take_the_same_number_of_statements_however_many() {
    let world = World::new().await;
    let product = world.product(10_000).await;
    let alone = Pool::new(world.database.url().parse().unwrap(), 1, &Bounds::default());
    let mut counts = Vec::new();
    for size in [2, 200] {
        let ids: Vec<String> = (0..size).map(|n| format!("{size}-{n}")).collect();
        let held: Vec<_> = ids[1..].iter().map(|id| order(id.as_str(), &[(product, 1)])).collect();
        reserve(&world, &held).await;
        let paid = || Ending::Completed(Some(Request::of(&[Item { product_id: product, quantity: 1 }])));
        let endings: Vec<_> = ids.iter().map(|id| (order_id(id.as_str()), paid())).collect();
        let before = executions(&alone).await;
        let settled = hold::settle(&alone, LockWait::Usual, &endings).await.unwrap();
        assert!(settled.answers.iter().all(|answer| matches!(answer, Answer::Sold(_))));
        counts.push(executions(&alone).await - before);
    }
    // Lock, read, insert the one that is new, update the others, write the levels, book.
    assert_eq!(counts, [6, 6]);
}

/// How often prepared statements were executed on the one connection, but for this question.
pub(crate) async fn executions(alone: &Pool) -> i64 {
    let sum = "select coalesce(sum(generic_plans + custom_plans), 0)::bigint
               from pg_prepared_statements
               where statement not like '%pg_prepared_statements%' and statement not like '%pg_catalog%'";
    sqlx::query_scalar(sum).fetch_one(&mut *alone.acquire().await.unwrap()).await.unwrap()
}
