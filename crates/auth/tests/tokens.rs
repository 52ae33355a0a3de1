//! Which tokens prove something, and for how long that is known without the issuer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auth::keys::{Published, Revoked};
use auth::token::{LEEWAY_SECONDS, MAX_AHEAD_SECONDS, now_seconds};
use auth::{Caller, Claims, Keys, Refused, Role, SigningKey, Verifier};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PERIOD: Duration = Duration::from_secs(5);

/// An issuer whose keys can be changed, and who can be away.
struct Issuer {
    published: watch::Sender<Option<Published>>,
    loads: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    verifier: Verifier,
}

impl Issuer {
    async fn publishing(keys: &[&SigningKey]) -> Self {
        let (published, looked_at) = watch::channel(Some(set(keys, &[])));
        let (loads, shutdown, keys) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new(), Keys::default());
        let verifier = Verifier::new(keys.clone(), "issuer", "audience");
        let (counted, stopped, followed) = (loads.clone(), shutdown.clone(), keys.clone());
        tokio::spawn(async move {
            let load = || {
                counted.fetch_add(1, Ordering::Relaxed);
                let now = looked_at.borrow().clone();
                async { now.ok_or_else(|| anyhow::anyhow!("away")) }
            };
            followed.follow(PERIOD, &stopped, load).await;
        });
        while keys.check().is_err() {
            tokio::task::yield_now().await;
        }
        Self { published, loads, shutdown, verifier }
    }

    async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        self.verifier.verify(token).await
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn set(keys: &[&SigningKey], revoked: &[Revoked]) -> Published {
    Published { keys: keys.iter().map(|key| key.public().unwrap()).collect(), revoked: revoked.to_vec() }
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

fn claims() -> Claims {
    let iat = now_seconds();
    Claims {
        iss: "issuer".into(),
        aud: "audience".into(),
        sub: Uuid::from_u128(7),
        role: Role::User,
        iat,
        exp: iat + 900,
    }
}

/// A token of any header and any claims, signed as one likes.
fn forge(header: &Value, claims: &Value, sign: impl FnOnce(&str) -> String) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(&message);
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_token_of_the_issuer_proves_who_its_bearer_is() {
    let key = key();
    let issuer = Issuer::publishing(&[&key]).await;
    for role in [Role::User, Role::Admin] {
        let token = key.sign(&Claims { role, ..claims() }).unwrap();
        assert_eq!(issuer.verify(&token).await, Ok(Caller { user_id: Uuid::from_u128(7), role }));
    }
}

#[tokio::test]
async fn a_token_that_says_something_else_proves_nothing() {
    let key = key();
    let issuer = Issuer::publishing(&[&key]).await;
    let now = now_seconds();
    let old = now - LEEWAY_SECONDS - 1;
    let ahead = |seconds| Claims { iat: now + seconds, exp: now + seconds + 900, ..claims() };
    for (why, wrong, refused) in [
        ("audience", Claims { aud: "other".into(), ..claims() }, Refused::Invalid),
        ("issuer", Claims { iss: "other".into(), ..claims() }, Refused::Invalid),
        ("expired", Claims { iat: old - 900, exp: old, ..claims() }, Refused::Expired),
        ("signed too far ahead", ahead(MAX_AHEAD_SECONDS + 10), Refused::Invalid),
        ("signed tomorrow", Claims { iat: now + 86_400, exp: now + 87_000, ..claims() }, Refused::Invalid),
    ] {
        assert_eq!(issuer.verify(&key.sign(&wrong).unwrap()).await, Err(refused), "{why}");
    }
    assert!(
        issuer.verify(&key.sign(&ahead(MAX_AHEAD_SECONDS - 10)).unwrap()).await.is_ok(),
        "clocks may differ so much"
    );
}

#[tokio::test]
async fn a_forged_token_proves_nothing() {
    let [key, attackers] = [key(), key()];
    let issuer = Issuer::publishing(&[&key]).await;
    let admin = serde_json::to_value(Claims { role: Role::Admin, ..claims() }).unwrap();
    let kid = key.kid();
    let good = key.sign(&claims()).unwrap();
    let signature = good.rsplit('.').next().unwrap().to_owned();
    let public = key.public().unwrap()["x"].as_str().unwrap().to_owned();
    let hmac = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        (header.typ, header.kid) = (Some("at+jwt".into()), Some(kid.into()));
        jsonwebtoken::encode(&header, &admin, &EncodingKey::from_secret(secret)).unwrap()
    };
    let typed = |typ: &str| {
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some(typ.into()), Some(kid.into()));
        jsonwebtoken::encode(&header, &admin, &EncodingKey::from_ed_der(key.pkcs8())).unwrap()
    };
    let others = {
        // The attacker's signature under our key's name, and with the attacker's key in the header.
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some("at+jwt".into()), Some(kid.into()));
        header.jwk = serde_json::from_value(attackers.public().unwrap()).unwrap();
        header.jku = Some("https://attacker.example/jwks.json".into());
        jsonwebtoken::encode(&header, &admin, &EncodingKey::from_ed_der(attackers.pkcs8())).unwrap()
    };
    for (attack, token) in [
        ("no algorithm", forge(&json!({"alg": "none", "typ": "at+jwt", "kid": kid}), &admin, |_| String::new())),
        ("None", forge(&json!({"alg": "None", "typ": "at+jwt", "kid": kid}), &admin, |_| String::new())),
        ("another's signature", forge(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid}), &admin, |_| signature)),
        ("no signature", forge(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid}), &admin, |_| String::new())),
        ("the public key as a secret", hmac(&URL_SAFE_NO_PAD.decode(&public).unwrap())),
        ("the public key's text as a secret", hmac(public.as_bytes())),
        ("the attacker's key", others),
        ("another kind of token", typed("JWT")),
        ("a key that is nobody's", attackers.sign(&claims()).unwrap()),
        ("too long", format!("{good}{}", "a".repeat(4_000))),
        ("nothing", String::new()),
    ] {
        assert_eq!(issuer.verify(&token).await, Err(Refused::Invalid), "{attack}");
    }
    let missing = |claim: &str| {
        let mut claims = admin.clone();
        claims.as_object_mut().unwrap().remove(claim);
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some("at+jwt".into()), Some(kid.into()));
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(key.pkcs8())).unwrap()
    };
    for claim in ["iss", "aud", "sub", "exp", "iat", "role"] {
        assert_eq!(issuer.verify(&missing(claim)).await, Err(Refused::Invalid), "without {claim}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_change_without_anybody_noticing() {
    let (old, new) = (key(), key());
    let issuer = Issuer::publishing(&[&old]).await;
    issuer.published.send_replace(Some(set(&[&old, &new], &[])));
    tokio::time::sleep(PERIOD / 2).await;
    assert!(issuer.verify(&new.sign(&claims()).unwrap()).await.is_ok(), "an unknown key is looked for at once");
    assert!(issuer.verify(&old.sign(&claims()).unwrap()).await.is_ok(), "the old one still counts");
    issuer.published.send_replace(Some(set(&[&new], &[])));
    tokio::time::sleep(2 * PERIOD).await;
    assert_eq!(issuer.verify(&old.sign(&claims()).unwrap()).await, Err(Refused::Invalid));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_verified_while_the_issuer_is_away() {
    let (known, unknown) = (key(), key());
    let issuer = Issuer::publishing(&[&known]).await;
    for away in [None, Some(Published::default())] {
        issuer.published.send_replace(away);
        tokio::time::sleep(1_000 * PERIOD).await;
        assert!(issuer.verify(&known.sign(&claims()).unwrap()).await.is_ok());
    }
    assert!(issuer.verify(&known.sign(&claims()).unwrap()).await.is_ok());
    assert_eq!(issuer.verify(&unknown.sign(&claims()).unwrap()).await, Err(Refused::Invalid));
}

/// A load that has begun is not dropped, and one that the issuer never answers has an end.
#[tokio::test(start_paused = true)]
async fn it_stops_when_the_load_in_hand_is_done_or_has_timed_out() {
    let signing = key();
    for (answers_after, is_loaded) in [(Duration::from_secs(1), true), (Duration::from_secs(86_400), false)] {
        let (keys, shutdown, begun) = (Keys::default(), CancellationToken::new(), tokio::time::Instant::now());
        let published = set(&[&signing], &[]);
        let load = || {
            shutdown.cancel();
            let published = published.clone();
            async move {
                tokio::time::sleep(answers_after).await;
                Ok(published)
            }
        };
        keys.follow(PERIOD, &shutdown, load).await;
        assert_eq!(keys.check().is_ok(), is_loaded);
        assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_key_it_is_not_the_tokens_fault() {
    let keys = Keys::default();
    assert!(keys.check().is_err());
    let verifier = Verifier::new(keys, "issuer", "audience");
    assert_eq!(verifier.verify(&key().sign(&claims()).unwrap()).await, Err(Refused::Unverifiable));
}

#[tokio::test(start_paused = true)]
async fn however_many_unknown_keys_are_named_the_issuer_is_asked_once_a_second() {
    let known = key();
    let issuer = Issuer::publishing(&[&known]).await;
    let (loads, begun) = (issuer.loads.load(Ordering::Relaxed), tokio::time::Instant::now());
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        let several = (0..10).map(|_| {
            let (verifier, token) = (issuer.verifier.clone(), key().sign(&claims()).unwrap());
            tokio::spawn(async move { verifier.verify(&token).await })
        });
        for verified in several.collect::<Vec<_>>() {
            assert_eq!(verified.await.unwrap(), Err(Refused::Invalid));
            asked += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let loads = issuer.loads.load(Ordering::Relaxed) - loads;
    assert!(asked >= 50 && loads <= 12, "{loads} loads for {asked} tokens");
}

#[tokio::test(start_paused = true)]
async fn older_tokens_of_a_revoked_account_end_and_newer_ones_count() {
    let key = key();
    let issuer = Issuer::publishing(&[&key]).await;
    let before = now_seconds();
    issuer.published.send_replace(Some(set(&[&key], &[Revoked { sub: Uuid::from_u128(7), before }])));
    tokio::time::sleep(2 * PERIOD).await;
    let signed = |sub, iat| key.sign(&Claims { sub: Uuid::from_u128(sub), iat, ..claims() }).unwrap();
    assert_eq!(issuer.verify(&signed(7, before - 1)).await, Err(Refused::Revoked));
    assert!(issuer.verify(&signed(7, before)).await.is_ok());
    assert!(issuer.verify(&signed(8, before - 1)).await.is_ok(), "another account");
}

#[tokio::test(start_paused = true)]
async fn keys_of_other_kinds_in_the_set_are_passed_over() {
    let ours = key();
    let issuer = Issuer::publishing(&[&ours]).await;
    let mut published = set(&[&ours], &[]);
    let rsa = json!({"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"});
    let nameless = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for other in [rsa, nameless, json!({"kty": "new"}), json!(7), json!(null)] {
        published.keys.insert(0, other);
    }
    issuer.published.send_replace(Some(published));
    tokio::time::sleep(2 * PERIOD).await;
    assert!(issuer.verify(&ours.sign(&claims()).unwrap()).await.is_ok());
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_makes_it_panic(text in "(\\PC{0,40}\\.){0,4}\\PC{0,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let verifier = Verifier::new(Keys::default(), "issuer", "audience");
        prop_assert!(runtime.block_on(verifier.verify(&text)).is_err());
    }
}
