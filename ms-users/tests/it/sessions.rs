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
