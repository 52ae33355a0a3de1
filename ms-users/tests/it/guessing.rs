use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{LOGIN, PASSWORD, REGISTER, World};

#[tokio::test]
async fn after_a_few_wrong_passwords_the_next_has_to_wait_whether_there_is_an_account_or_not() {
    let world = World::new().await;
    let api = &world.api;
    api.register("ann@example.com", PASSWORD).await;
    for email in ["ann@example.com", "nobody@example.com"] {
        let wrong = json!({"email": email, "password": "wrong password"});
        let mut tried = 0;
        // Until the wait is so long that the next request comes within it, however slow the machine is.
        loop {
            let answer = api.send("", LOGIN, wrong.clone()).await;
            let extensions = &answer["errors"][0]["extensions"];
            match extensions["retryAfterSeconds"].as_u64() {
                None => tried += 1,
                Some(4..) => break,
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
            assert!(tried <= 10, "{answer}");
        }
        assert!(tried >= 4, "{tried}");
        // Not even the right password is looked at.
        let slow = api.refused("RATE_LIMITED", "", LOGIN, json!({"email": email, "password": PASSWORD})).await;
        assert!(slow["extensions"]["retryAfterSeconds"].as_u64().is_some_and(|seconds| seconds <= 4), "{slow}");
    }
    api.login("root@example.com", PASSWORD).await;
}

#[tokio::test]
async fn a_client_has_a_quota_of_logins_and_registrations() {
    let world = World::with(&["--logins-per-minute", "9"]).await;
    let api = &world.api;
    for n in 0..3 {
        let email = format!("nobody{n}@example.com");
        api.refused("UNAUTHENTICATED", "", LOGIN, json!({"email": email, "password": PASSWORD})).await;
    }
    for mutation in [LOGIN, REGISTER] {
        let new = json!({"email": "new@example.com", "password": PASSWORD});
        let slow = api.refused("RATE_LIMITED", "", mutation, new).await;
        assert!(slow["extensions"]["retryAfterSeconds"].as_i64().unwrap() >= 1, "{slow}");
    }
}

/// Half of the sorted times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What differs is 20 ms for a hash against none. The medians of a few tries are closer than half of that, on any
/// machine; a hash that is left out shows as a tenth.
#[tokio::test]
async fn it_takes_as_long_to_refuse_an_account_that_does_not_exist() {
    const TRIES: usize = 15;
    let world = World::new().await;
    let api = &world.api;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        let email = format!("ann{n}@example.com");
        api.register(&email, PASSWORD).await;
        for (email, times) in [(email, &mut known), (format!("nobody{n}@example.com"), &mut unknown)] {
            let begun = Instant::now();
            api.refused("UNAUTHENTICATED", "", LOGIN, json!({"email": email, "password": "wrong password"})).await;
            times.push(begun.elapsed());
        }
    }
    let (known, unknown) = (median(known), median(unknown));
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{known:?} for an account, {unknown:?} for none");
}

#[tokio::test]
async fn one_request_cannot_try_many_passwords() {
    let world = World::new().await;
    let api = &world.api;
    let tries: String = (0..5)
        .map(|n| format!("t{n}: login(email: \"ann@example.com\", password: \"guess {n}\") {{ expiresIn }} "))
        .collect();
    api.refused("TOO_COMPLEX", "", &format!("mutation {{ {tries} }}"), json!({})).await;
}
