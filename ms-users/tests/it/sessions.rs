use serde_json::json;

use crate::world::{PASSWORD, REFRESH, World};

const LOGOUT: &str = "mutation($token: String!) { logout(refreshToken: $token) }";

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_second_use_ends_the_whole_family() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let first = api.register("ann@example.com", PASSWORD).await;
    let elsewhere = api.login("ann@example.com", PASSWORD).await;
    let second = api.refresh(&first.refresh).await;
    let third = api.refresh(&second.refresh).await;
    assert!(api.counts(&third.access).await);

    let error = api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": first.refresh})).await;
    assert!(error["message"].as_str().unwrap().contains("used before"), "{error}");
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": third.refresh})).await;
    api.refresh(&elsewhere.refresh).await;
    let recorded: i64 = sqlx::query_scalar("select count(*) from account_changes where change = 'session_stolen'")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(recorded, 1);
}

#[tokio::test]
async fn of_two_who_refresh_at_once_one_is_a_thief() {
    let world = World::new().await;
    let api = &world.api;
    let session = api.register("ann@example.com", PASSWORD).await;
    let token = json!({"token": session.refresh});
    let (one, two) = tokio::join!(api.send("", REFRESH, token.clone()), api.send("", REFRESH, token));
    let refused = [&one, &two].into_iter().filter(|answer| !answer["errors"].is_null()).count();
    assert_eq!(refused, 1, "{one} {two}");
}

#[tokio::test]
async fn logout_ends_the_session_and_no_other() {
    let world = World::new().await;
    let api = &world.api;
    let session = api.register("ann@example.com", PASSWORD).await;
    let elsewhere = api.login("ann@example.com", PASSWORD).await;
    for token in [&session.refresh, &session.refresh, "no token", ""] {
        assert_eq!(api.ask("", LOGOUT, json!({"token": token})).await, true);
    }
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": session.refresh})).await;
    api.refresh(&elsewhere.refresh).await;
}

#[tokio::test]
async fn a_session_ends_by_itself_and_is_forgotten() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let session = api.register("ann@example.com", PASSWORD).await;
    sqlx::query("update sessions set expires_at = now(), created_at = now() - interval '91 days'")
        .execute(pool)
        .await
        .unwrap();
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": session.refresh})).await;
    ms_users::session::forget_ended(&world.connections).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from refresh_tokens").fetch_one(pool).await.unwrap();
    assert_eq!(left, 0);
}

/// A session of the version before: its tokens do not say which session they are of, and used ones are kept.
#[tokio::test]
async fn a_session_of_the_version_before_goes_on_and_notices_a_thief() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let session = api.register("ann@example.com", PASSWORD).await;
    let old = "b2xkLXRva2VuLW9mLTMyLWJ5dGVzLWFzLXRoZXktd2U";
    sqlx::query("update sessions set family = null").execute(pool).await.unwrap();
    sqlx::query("update refresh_tokens set hash = sha256($1::bytea)").bind(old.as_bytes()).execute(pool).await.unwrap();
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": session.refresh})).await;
    let second = api.refresh(old).await;
    assert_eq!(second.refresh.len(), old.len());
    let third = api.refresh(&second.refresh).await;
    let kept: i64 = sqlx::query_scalar("select count(*) from refresh_tokens").fetch_one(pool).await.unwrap();
    assert_eq!(kept, 3);
    let error = api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": old})).await;
    assert!(error["message"].as_str().unwrap().contains("used before"), "{error}");
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": third.refresh})).await;
}

#[tokio::test]
async fn a_session_keeps_one_token_however_often_it_is_refreshed() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let first = api.register("ann@example.com", PASSWORD).await;
    let mut newest = first.clone();
    for _ in 0..10 {
        newest = api.refresh(&newest.refresh).await;
    }
    let kept: i64 = sqlx::query_scalar("select count(*) from refresh_tokens").fetch_one(pool).await.unwrap();
    assert_eq!(kept, 1);
    // What only looks like a token of the session was never given to anybody; what it begins with was.
    let forged = format!("{}{}", &first.refresh[..32], "x".repeat(32));
    let error = api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": forged})).await;
    assert!(error["message"].as_str().unwrap().contains("used before"), "{error}");
    api.refused("UNAUTHENTICATED", "", REFRESH, json!({"token": newest.refresh})).await;
}

#[tokio::test]
async fn old_sessions_and_used_tokens_are_deleted_a_bounded_number_at_a_time() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let live = api.register("ann@example.com", PASSWORD).await;
    // Sessions that are over, the last of which keeps its used tokens; a fresh one that ended; an old one that goes on.
    sqlx::raw_sql(
        "insert into sessions (id, user_id, client, created_at, expires_at, family)
         select gen_random_uuid(), (select id from users where email = 'ann@example.com'), 'old',
             now() - interval '91 days', now() - make_interval(secs => n), sha256(n::text::bytea)
         from generate_series(1, 2500) as n;
         insert into refresh_tokens (hash, session_id) select sha256(id::text::bytea), id from sessions where client = 'old';
         insert into refresh_tokens (hash, session_id, used_at)
         select sha256(('used ' || n)::bytea), (select id from sessions where client = 'old' limit 1),
             now() - interval '31 days'
         from generate_series(1, 1500) as n;
         insert into sessions (id, user_id, client, created_at, expires_at)
         select gen_random_uuid(), user_id, client, created_at, expires_at
         from (select user_id, 'ended' as client, now() - interval '89 days' as created_at, now() as expires_at from sessions
               limit 1) as ended
         union all
         select gen_random_uuid(), user_id, 'lasting', now() - interval '91 days', now() + interval '1 day' from sessions
         where client <> 'old';",
    )
    .execute(pool)
    .await
    .unwrap();
    let counts = async || -> (i64, i64) {
        sqlx::query_as("select (select count(*) from sessions), (select count(*) from refresh_tokens)")
            .fetch_one(pool)
            .await
            .unwrap()
    };
    let before = counts().await;
    let mut left = vec![before];
    while ms_users::session::forget_ended(&world.connections).await.unwrap() {
        left.push(counts().await);
    }
    left.push(counts().await);
    for two in left.windows(2) {
        let (sessions, tokens) = (two[0].0 - two[1].0, two[0].1 - two[1].1);
        assert!(sessions <= 1_000 && tokens <= 2_000, "{left:?}");
    }
    assert_eq!(before.0 - left.last().unwrap().0, 2_500);
    let clients: Vec<String> =
        sqlx::query_scalar("select distinct client from sessions order by client").fetch_all(pool).await.unwrap();
    assert!(clients.contains(&"ended".to_owned()) && clients.contains(&"lasting".to_owned()), "{clients:?}");
    assert!(!clients.contains(&"old".to_owned()), "{clients:?}");
    api.refresh(&live.refresh).await;
}

#[tokio::test]
async fn no_secret_is_stored_as_it_is() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let session = api.register("ann@example.com", PASSWORD).await;
    let stored: String = sqlx::query_scalar(
        "select concat(
           (select json_agg(users) from users), (select json_agg(sessions) from sessions),
           (select json_agg(refresh_tokens) from refresh_tokens), (select json_agg(signing_keys) from signing_keys),
           (select json_agg(account_changes) from account_changes)
         )",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(stored.contains("ann@example.com"));
    for secret in [PASSWORD, &session.refresh, &session.access] {
        assert!(!stored.contains(secret), "{secret}");
    }
}
