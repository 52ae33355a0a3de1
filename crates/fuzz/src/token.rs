//! Who a stranger says that they are: tokens, the keys by which they are verified, and e-mail addresses.

use std::sync::LazyLock;

use auth::keys::Published;
use auth::token::now_seconds;
use auth::{Caller, Keys, Refused, SigningKey, Tokens, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ms_users::email::Email;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// A key that is trusted, and by whom.
struct Door {
    key: SigningKey,
    verifier: Verifier,
    runtime: Runtime,
}

static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("there is randomness");
    let published = Published { keys: vec![key.public().expect("a key is public")], revoked: Vec::new() };
    let verifier = Tokens::default().verifier(Keys::of(&published));
    Door { key, verifier, runtime: Builder::new_current_thread().enable_time().build().expect("a runtime starts") }
});

impl Door {
    /// `None` where it would wait for a key that nobody has.
    fn verify(&self, token: &str) -> Option<Result<Caller, Refused>> {
        self.runtime.block_on(async { self.verifier.verify(token).now_or_never() })
    }
}

/// A token, as text, and as a header and claims that nobody signed.
///
/// # Panics
/// Where it proves something.
pub fn token(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (header, claims) = text.split_once('\n').unwrap_or((text, "{}"));
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let unsigned = format!("{}.{}.{}", encode(header), encode(claims), encode("x"));
    let named = header.replace("KID", DOOR.key.kid());
    let named = format!("{}.{}.", encode(&named), encode(claims));
    for token in [text, &unsigned, &named] {
        assert!(!matches!(DOOR.verify(token), Some(Ok(_))), "{token} proves something");
    }
}

/// What a token says that is signed as it must be.
///
/// # Panics
/// Where it is taken though it is not for us, or its time is over.
pub fn claims(input: &[u8]) {
    let Ok(mut claims) = serde_json::from_slice::<Value>(input) else { return };
    let now = now_seconds();
    if claims["exp"] == "NOW" {
        claims["exp"] = json!(now + 100);
    }
    let mut header = Header::new(Algorithm::EdDSA);
    (header.typ, header.kid) = (Some("at+jwt".to_owned()), Some(DOOR.key.kid().to_owned()));
    let key = EncodingKey::from_ed_der(DOOR.key.pkcs8());
    let Ok(token) = jsonwebtoken::encode(&header, &claims, &key) else { return };
    if let Some(Ok(caller)) = DOOR.verify(&token) {
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("ms-users"), &json!("order-inventory")));
        assert_eq!(claims["role"], caller.role.to_string());
        assert!(claims["exp"].as_u64().is_some_and(|exp| exp + auth::token::LEEWAY_SECONDS >= now), "{claims}");
    }
}

/// A set of keys, as an issuer publishes it.
pub fn key_set(input: &[u8]) {
    if let Ok(published) = serde_json::from_slice::<Published>(input) {
        drop(Keys::of(&published).check());
    }
}

/// The e-mail address of an account.
///
/// # Panics
/// Where an address of ASCII has two spellings.
pub fn email(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(email) = text.parse::<Email>() {
        assert_eq!(email.as_str().parse(), Ok(email.clone()));
        // Beyond ASCII a letter may have no way back from upper case.
        if text.is_ascii() {
            assert_eq!(text.to_uppercase().parse(), Ok(email.clone()));
        }
        assert!(email.as_str().len() <= 254 && !email.as_str().contains('\0'));
    }
}
