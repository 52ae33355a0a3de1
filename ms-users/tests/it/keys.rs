use std::collections::BTreeSet;
use std::sync::Mutex;

use ms_users::signing::{Seal, rotate};
use serde_json::Value;

use crate::world::{Instance, PASSWORD, SECRET, World, eventually};

fn kids(published: &Value) -> BTreeSet<String> {
    published["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn let_time_pass(world: &World, interval: &str) {
    sqlx::query(
        "update signing_keys
         set signs_from = signs_from - $1::text::interval, retires_at = retires_at - $1::text::interval",
    )
    .bind(interval)
    .execute(&world.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_takes_over_and_the_old_one_counts_until_its_tokens_have_ended() {
    let world = World::new().await;
    let api = &world.api;
    let old = api.register("ann@example.com", PASSWORD).await;
    let first = kids(&api.published().await);
    assert_eq!(first.len(), 1);

    let new = rotate(&world.connections, &Seal::of(&SECRET.into()).unwrap(), false).await.unwrap();
    eventually("the new key is published", async || kids(&api.published().await).contains(&new)).await;
    let kid = |token: &str| {
        let header = token.split('.').next().unwrap();
        let json = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
        serde_json::from_slice::<Value>(&json).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let meanwhile = api.login("ann@example.com", PASSWORD).await;
    assert!(first.contains(&kid(&meanwhile.access)), "it is announced before it signs");

    let_time_pass(&world, "61 seconds").await;
    eventually("the new key signs", async || kid(&api.login("ann@example.com", PASSWORD).await.access) == new).await;
    assert!(api.counts(&old.access).await && api.counts(&meanwhile.access).await, "the old key counts");
    let_time_pass(&world, "18 minutes").await;
    eventually("the old key is gone", async || kids(&api.published().await) == BTreeSet::from([new.clone()])).await;
    eventually("the old tokens count no more", async || !api.counts(&old.access).await).await;
}

#[tokio::test]
async fn an_instance_that_starts_waits_for_a_database_that_is_busy() {
    let world = World::new().await;
    let mut tx = world.pool.begin().await.unwrap();
    sqlx::query("lock table signing_keys in access exclusive mode").execute(&mut *tx).await.unwrap();
    let releasing = async {
        let waiting = "select extract(epoch from query_start)::text from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let tries = Mutex::new(BTreeSet::new());
        eventually("it tries again", async || {
            let now: Vec<String> = sqlx::query_scalar(waiting).fetch_all(&world.pool).await.unwrap();
            let mut tries = tries.lock().unwrap();
            tries.extend(now);
            tries.len() >= 3
        })
        .await;
        tx.rollback().await.unwrap();
    };
    tokio::join!(Instance::start(world.database.url(), &["--database-lock-timeout-seconds", "1"]), releasing);
}

#[tokio::test]
async fn a_key_that_was_stolen_ends_at_once() {
    let world = World::new().await;
    let api = &world.api;
    let session = api.register("ann@example.com", PASSWORD).await;
    let new = rotate(&world.connections, &Seal::of(&SECRET.into()).unwrap(), true).await.unwrap();
    eventually("only the new key counts", async || kids(&api.published().await) == BTreeSet::from([new.clone()])).await;
    eventually("its tokens count no more", async || !api.counts(&session.access).await).await;
    assert!(api.counts(&api.refresh(&session.refresh).await.access).await, "a refresh is all it takes");
    let stored: i64 = sqlx::query_scalar("select count(*) from signing_keys").fetch_one(&world.pool).await.unwrap();
    assert_eq!(stored, 1, "the stolen key is not kept");
}

#[tokio::test]
async fn instances_that_start_together_share_one_key() {
    let world = World::new().await;
    let others = futures::future::join_all((0..3).map(|_| Instance::start(world.database.url(), &[]))).await;
    let published = kids(&world.api.published().await);
    assert_eq!(published.len(), 1);
    let session = world.api.register("ann@example.com", PASSWORD).await;
    for other in others {
        assert_eq!(kids(&other.published().await), published);
        assert!(other.counts(&session.access).await);
    }
}

#[tokio::test]
async fn what_is_published_is_public() {
    let world = World::new().await;
    let published = world.api.published().await;
    let key = published["keys"][0].as_object().unwrap();
    let members: BTreeSet<&str> = key.keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["alg", "crv", "kid", "kty", "use", "x"]));
    assert_eq!((&key["alg"], &key["crv"], &key["kty"]), (&"EdDSA".into(), &"Ed25519".into(), &"OKP".into()));
}
