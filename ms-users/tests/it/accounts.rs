use serde_json::{Value, json};

use crate::world::{Instance, LOGIN, PASSWORD, REGISTER, World, eventually};

const CHANGE_PASSWORD: &str = "mutation($current: String!, $new: String!) {
  changePassword(currentPassword: $current, newPassword: $new) { accessToken refreshToken user { id } }
}";

const SET_ROLE: &str = "mutation($id: ID!, $role: Role!) { setRole(userId: $id, role: $role) { id role } }";

const DISABLE: &str = "mutation($id: ID!) { disableUser(userId: $id) { id disabledAt } }";

const ENABLE: &str = "mutation($id: ID!) { enableUser(userId: $id) { id disabledAt } }";

fn with(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

#[tokio::test]
async fn whoever_registers_is_signed_in_and_can_sign_in_again() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let ann = api.register(" Ann@Example.com", PASSWORD).await;
    assert_eq!((&ann.user["email"], &ann.user["role"]), (&json!("ann@example.com"), &json!("USER")));
    let me = api.ask(&ann.access, "{ me { id email role disabledAt } }", json!({})).await;
    assert_eq!(me["id"], ann.user["id"]);
    assert_eq!(api.login("ANN@example.COM", PASSWORD).await.user, ann.user);
    let stored: String = sqlx::query_scalar("select password_hash from users where email = 'ann@example.com'")
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
}

#[tokio::test]
async fn an_address_has_one_account_whatever_its_case() {
    let world = World::new().await;
    let (api, pool) = (&world.api, &world.pool);
    let both = tokio::join!(
        api.send("", REGISTER, with("ann@example.com", PASSWORD)),
        api.send("", REGISTER, with("Ann@Example.com", PASSWORD))
    );
    let codes = [&both.0, &both.1].map(|answer| answer["errors"][0]["extensions"]["code"].clone());
    assert!(codes.contains(&json!("CONFLICT")) && codes.contains(&Value::Null), "{both:?}");
    let count = "select count(*) from users where email like 'ann%'";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_no_address_or_no_good_password_is_refused_with_its_reason() {
    let world = World::new().await;
    let api = &world.api;
    for (email, password, field) in [
        ("ann", PASSWORD, "email"),
        ("ann@example", PASSWORD, "email"),
        ("ann@example.com", "1234567", "password"),
        ("ann@example.com", "password1", "password"),
        ("ann@example.com", &"x".repeat(129), "password"),
    ] {
        let error = api.refused("INVALID", "", REGISTER, with(email, password)).await;
        assert_eq!(error["extensions"]["field"], field, "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_or_disabled_account_are_refused_alike() {
    let world = World::new().await;
    let api = &world.api;
    let [ann, bob] = [api.register("ann@example.com", PASSWORD).await, api.register("bob@example.com", PASSWORD).await];
    let admin = api.admin().await;
    api.ask(&admin.access, DISABLE, json!({"id": bob.user["id"]})).await;
    let mut errors = Vec::new();
    for (email, password) in [
        ("ann@example.com", "wrong password"),
        ("nobody@example.com", PASSWORD),
        ("bob@example.com", PASSWORD),
        ("no address", PASSWORD),
    ] {
        errors.push(api.refused("UNAUTHENTICATED", "", LOGIN, with(email, password)).await);
    }
    assert!(errors.windows(2).all(|two| two[0] == two[1]), "{errors:?}");
    assert!(api.counts(&ann.access).await);
}

#[tokio::test]
async fn another_password_ends_every_session_but_the_new_one() {
    let world = World::new().await;
    let api = &world.api;
    let [one, two] = [api.register("ann@example.com", PASSWORD).await, api.login("ann@example.com", PASSWORD).await];
    let wrong = json!({"current": "not this one", "new": "another horse battery"});
    api.refused("UNAUTHENTICATED", &one.access, CHANGE_PASSWORD, wrong).await;
    let weak = json!({"current": PASSWORD, "new": "password1"});
    let error = api.refused("INVALID", &one.access, CHANGE_PASSWORD, weak).await;
    assert_eq!(error["extensions"]["field"], "newPassword");

    let right = json!({"current": PASSWORD, "new": "another horse battery"});
    let new = crate::world::session(&api.ask(&one.access, CHANGE_PASSWORD, right).await);
    for old in [&one, &two] {
        eventually("the old token counts no more", async || !api.counts(&old.access).await).await;
        let refresh = json!({"token": old.refresh});
        api.refused("UNAUTHENTICATED", "", crate::world::REFRESH, refresh).await;
    }
    assert!(api.counts(&new.access).await, "the new token counts");
    api.refresh(&new.refresh).await;
    api.refused("UNAUTHENTICATED", "", LOGIN, with("ann@example.com", PASSWORD)).await;
    api.login("ann@example.com", "another horse battery").await;
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once_and_can_be_let_in_again() {
    let world = World::new().await;
    let api = &world.api;
    let (ann, admin) = (api.register("ann@example.com", PASSWORD).await, api.admin().await);
    let id = json!({"id": ann.user["id"]});
    let disabled = api.ask(&admin.access, DISABLE, id.clone()).await;
    assert!(disabled["disabledAt"].is_string());
    assert_eq!(api.ask(&admin.access, DISABLE, id.clone()).await, disabled, "again it changes nothing");
    eventually("its token counts no more", async || !api.counts(&ann.access).await).await;
    api.refused("UNAUTHENTICATED", "", crate::world::REFRESH, json!({"token": ann.refresh})).await;

    assert_eq!(api.ask(&admin.access, ENABLE, id).await["disabledAt"], Value::Null);
    assert!(!api.counts(&ann.access).await, "it has to sign in");
    assert!(api.counts(&api.login("ann@example.com", PASSWORD).await.access).await);
}

#[tokio::test]
async fn tokens_end_however_far_the_clocks_of_host_and_database_are_apart() {
    for seconds in [-50, -3, 3, 50] {
        let world = World::with_clock_ahead(seconds).await;
        let api = &world.api;
        let (ann, admin) = (api.register("ann@example.com", PASSWORD).await, api.admin().await);
        let told = format!("PostgreSQL is {seconds} s ahead");
        assert!(api.counts(&ann.access).await && api.counts(&admin.access).await, "{told}");

        let new = json!({"current": PASSWORD, "new": "another horse battery"});
        let changed = crate::world::session(&api.ask(&ann.access, CHANGE_PASSWORD, new).await);
        eventually(&format!("{told}, a token of the old password ends"), async || !api.counts(&ann.access).await).await;
        assert!(api.counts(&changed.access).await, "{told}");

        let refreshed = api.refresh(&changed.refresh).await;
        assert!(api.counts(&refreshed.access).await, "{told}");
        api.ask(&admin.access, DISABLE, json!({"id": ann.user["id"]})).await;
        for token in [&changed.access, &refreshed.access] {
            eventually(&format!("{told}, a disabled account's token ends"), async || !api.counts(token).await).await;
        }
    }
}

#[tokio::test]
async fn roles_change_by_an_admin_and_there_is_always_one_left() {
    let world = World::new().await;
    let api = &world.api;
    let (ann, root) = (api.register("ann@example.com", PASSWORD).await, api.admin().await);
    let to = |who: &Value, role: &str| json!({"id": who["id"], "role": role});
    api.refused("FORBIDDEN", &ann.access, SET_ROLE, to(&ann.user, "ADMIN")).await;
    for (mutation, variables) in [(SET_ROLE, to(&root.user, "USER")), (DISABLE, json!({"id": root.user["id"]}))] {
        let error = api.refused("CONFLICT", &root.access, mutation, variables).await;
        assert_eq!(error["extensions"]["constraint"], "last_admin");
    }
    assert_eq!(api.ask(&root.access, SET_ROLE, to(&ann.user, "ADMIN")).await["role"], "ADMIN");
    eventually("the USER's token counts no more", async || !api.counts(&ann.access).await).await;
    let ann = api.refresh(&ann.refresh).await;
    assert_eq!(ann.user["role"], "ADMIN");
    // Two who end each other at the same time: one of them stays.
    let both = tokio::join!(
        api.send(&root.access, SET_ROLE, to(&ann.user, "USER")),
        api.send(&ann.access, DISABLE, json!({"id": root.user["id"]}))
    );
    let codes = [&both.0, &both.1].map(|answer| answer["errors"][0]["extensions"]["code"].clone());
    assert!(codes.contains(&json!("FORBIDDEN")) && codes.contains(&Value::Null), "{both:?}");
    for id in [json!("00000000-0000-7000-8000-000000000000"), json!("no id")] {
        let admin = api.login("root@example.com", PASSWORD);
        let admin = if codes[1].is_null() { ann.clone() } else { admin.await };
        api.refused("NOT_FOUND", &admin.access, DISABLE, json!({"id": id})).await;
    }
}

#[tokio::test]
async fn an_admin_who_was_ended_a_moment_ago_changes_nothing_any_more() {
    let world = World::new().await;
    let api = &world.api;
    let (ann, root) = (api.register("ann@example.com", PASSWORD).await, api.admin().await);
    api.ask(&root.access, SET_ROLE, json!({"id": ann.user["id"], "role": "ADMIN"})).await;
    let ann = api.login("ann@example.com", PASSWORD).await;
    // As if nobody had heard yet that her tokens count no more.
    let end = "update users set disabled_at = now() where email = 'ann@example.com'";
    sqlx::query(end).execute(&world.pool).await.unwrap();
    for (mutation, variables) in [
        (SET_ROLE, json!({"id": ann.user["id"], "role": "ADMIN"})),
        (ENABLE, json!({"id": ann.user["id"]})),
        (DISABLE, json!({"id": root.user["id"]})),
    ] {
        api.refused("FORBIDDEN", &ann.access, mutation, variables).await;
    }
    api.refused("UNAUTHENTICATED", &ann.access, CHANGE_PASSWORD, json!({"current": PASSWORD, "new": "another horse"}))
        .await;
    api.refused("UNAUTHENTICATED", "", crate::world::REFRESH, json!({"token": ann.refresh})).await;
}

/// For as long as a token of before may be about. Services that start later learn of it as well.
#[tokio::test]
async fn an_account_stays_revoked_for_as_long_as_its_tokens_last() {
    let world = World::new().await;
    let api = &world.api;
    let ann = api.register("ann@example.com", PASSWORD).await;
    let revoked_since = async |minutes: i32| {
        sqlx::query(
            "update users set tokens_not_before = floor(extract(epoch from now())) - 60 * $1
             where email = 'ann@example.com'",
        )
        .bind(minutes)
        .execute(&world.pool)
        .await
        .unwrap();
    };
    let is_published =
        async || api.published().await["revoked"].as_array().unwrap().iter().any(|one| one["sub"] == ann.user["id"]);
    // A token is good for a quarter of an hour.
    for (minutes, is_revoked) in [(14, true), (17, false), (2, true)] {
        revoked_since(minutes).await;
        eventually("it is published, or no more", async || is_published().await == is_revoked).await;
    }
}

/// Both know the old password, and both have shown it before either has changed it.
#[tokio::test]
async fn of_two_who_change_a_password_at_the_same_time_one_is_refused() {
    let patient = ["--database-lock-timeout-seconds", "60", "--database-statement-timeout-seconds", "60"];
    let world = World::with(&patient).await;
    let api = &world.api;
    let ann = api.register("ann@example.com", PASSWORD).await;
    let mut meanwhile = world.pool.begin().await.unwrap();
    sqlx::query("select from users where email = 'ann@example.com' for update").execute(&mut *meanwhile).await.unwrap();
    let change = |new: &'static str| api.send(&ann.access, CHANGE_PASSWORD, json!({"current": PASSWORD, "new": new}));
    let letting_go = async {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() == 2
        })
        .await;
        meanwhile.rollback().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(change("another horse"), change("a third horse"), letting_go);
    let codes = [&one, &other].map(|answer| answer["errors"][0]["extensions"]["code"].clone());
    assert!(codes.contains(&json!("UNAUTHENTICATED")) && codes.contains(&Value::Null), "{one} {other}");
}

#[tokio::test]
async fn demo_accounts_do_not_outlive_development() {
    let world = World::with(&["--environment", "development", "--demo-accounts", "true"]).await;
    let refused = Instance::ended(world.database.url(), &[]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("admin@example.com is open to everybody"), "{refused:#}");
    sqlx::query("update users set disabled_at = now() where email like '%@example.com' and email not like 'root%'")
        .execute(&world.pool)
        .await
        .unwrap();
    Instance::start(world.database.url(), &[]).await;
}

#[tokio::test]
async fn whoever_changed_an_account_is_written_down() {
    let world = World::new().await;
    let api = &world.api;
    let (ann, root) = (api.register("ann@example.com", PASSWORD).await, api.admin().await);
    let id = json!({"id": ann.user["id"], "role": "ADMIN"});
    api.ask(&root.access, SET_ROLE, id.clone()).await;
    api.ask(&root.access, DISABLE, json!({"id": ann.user["id"]})).await;
    let query = "query($id: UUID) { accountChanges(userId: $id) { nodes { userId change role actorId traceId } } }";
    let changes = api.ask(&root.access, query, json!({"id": ann.user["id"]})).await;
    let seen: Vec<(Value, Value, Value)> = changes["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["change"].clone(), change["role"].clone(), change["actorId"].clone()))
        .collect();
    let by_root = root.user["id"].clone();
    assert_eq!(
        seen,
        [
            (json!("DISABLED"), Value::Null, by_root.clone()),
            (json!("ROLE_CHANGED"), json!("ADMIN"), by_root),
            (json!("REGISTERED"), json!("USER"), Value::Null),
        ]
    );
}

#[tokio::test]
async fn an_admin_finds_accounts_page_by_page() {
    let world = World::new().await;
    let api = &world.api;
    for name in ["ann", "bob", "cem"] {
        api.register(&format!("{name}@shop.example"), PASSWORD).await;
    }
    let admin = api.admin().await;
    let query = "query($search: String, $first: Int, $after: String) {
      users(search: $search, first: $first, after: $after) { nodes { id email } pageInfo { hasNextPage endCursor } }
    }";
    let first = api.ask(&admin.access, query, json!({"search": "SHOP.example", "first": 2})).await;
    let after = &first["pageInfo"]["endCursor"];
    let second = api.ask(&admin.access, query, json!({"search": "shop", "first": 2, "after": after})).await;
    let emails =
        |page: &Value| page["nodes"].as_array().unwrap().iter().map(|user| user["email"].clone()).collect::<Vec<_>>();
    assert_eq!(emails(&first), ["cem@shop.example", "bob@shop.example"]);
    assert_eq!(emails(&second), ["ann@shop.example"]);
    let id = &second["nodes"][0]["id"];
    let one = api.ask(&admin.access, "query($id: ID!) { user(id: $id) { email } }", json!({"id": id})).await;
    assert_eq!(one["email"], "ann@shop.example");
}

#[tokio::test]
async fn the_first_admin_is_opened_once_and_keeps_their_password() {
    let world = World::new().await;
    let admin = world.api.admin().await;
    let new = json!({"current": PASSWORD, "new": "another horse battery"});
    world.api.ask(&admin.access, CHANGE_PASSWORD, new).await;
    let second = Instance::start(world.database.url(), &[]).await;
    second.refused("UNAUTHENTICATED", "", LOGIN, with("root@example.com", PASSWORD)).await;
    second.login("root@example.com", "another horse battery").await;
}
