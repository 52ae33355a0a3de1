//! Whose tokens a service trusts.

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use boot::config::{Authorities, Environment};
use boot::demo::{ADMIN_EMAIL, ADMIN_PASSWORD};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::keys::{self, Keys, Published};
use crate::signer::SigningKey;
use crate::token::{Claims, LIFETIME, Verifier};
use crate::{bearer, demo};

/// The longest set of keys that is read, in bytes: room for 200 000 accounts of which only newer tokens count.
const MAX_BYTES: usize = 16 * 1024 * 1024;

const ISSUER: &str = "ms-users";

const AUDIENCE: &str = "order-inventory";

/// What a token must say to be meant for us.
#[derive(Debug, Clone, Args)]
pub struct Tokens {
    /// Who signs access tokens: their claim `iss`.
    #[arg(long, env = "TOKEN_ISSUER", default_value = ISSUER)]
    pub token_issuer: String,

    /// For whom they are signed: their claim `aud`.
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = AUDIENCE)]
    pub token_audience: String,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { token_issuer: ISSUER.to_owned(), token_audience: AUDIENCE.to_owned() }
    }
}

impl Tokens {
    /// A token for somebody, of which nothing counts before `iat`, in seconds since 1970.
    ///
    /// # Errors
    /// When the key is none after all.
    pub fn sign(&self, key: &SigningKey, caller: Caller, iat: u64) -> anyhow::Result<String> {
        key.sign(&Claims {
            iss: self.token_issuer.clone(),
            aud: self.token_audience.clone(),
            sub: caller.user_id,
            role: caller.role,
            iat,
            exp: iat + LIFETIME.as_secs(),
        })
    }

    /// Verifies what is signed with these keys.
    pub fn verifier(&self, keys: Keys) -> Verifier {
        Verifier::new(keys, &self.token_issuer, &self.token_audience)
    }
}

/// Whose tokens a service trusts that signs none itself.
#[derive(Debug, Clone, Args)]
pub struct Trust {
    /// What tokens must say.
    #[command(flatten)]
    pub tokens: Tokens,

    /// Where the keys of tokens are: a JSON Web Key Set at an http:// or https:// URL, or in a file:// of this machine.
    #[arg(long, env = "JWKS_URL", default_value = "http://127.0.0.1:8002/.well-known/jwks.json")]
    pub jwks_url: String,

    /// A PEM file of the authorities whose certificates may be shown at an https:// URL of keys; those the system trusts
    /// where it is not set.
    #[arg(long, env = "JWKS_CA_FILE", value_parser = Authorities::read)]
    pub jwks_ca_file: Option<Authorities>,

    /// How often the keys are looked at again, in seconds: so long after an account was disabled its tokens are still
    /// taken, and so long after a role was taken away.
    #[arg(long, env = "JWKS_PERIOD_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=900))]
    pub jwks_period_seconds: u64,
}

impl Trust {
    /// Begins to trust; no key is known yet.
    ///
    /// # Errors
    /// When no HTTP client can be made of the authorities.
    pub fn begin(&self) -> anyhow::Result<Trusting> {
        Ok(Trusting {
            keys: Keys::default(),
            tokens: self.tokens.clone(),
            client: boot::neighbour::client(self.jwks_ca_file.as_ref())?.build()?,
            url: self.jwks_url.clone(),
            period: Duration::from_secs(self.jwks_period_seconds),
        })
    }
}

/// Trusts an issuer whose keys are looked at again and again. Clones share the keys.
#[derive(Debug, Clone)]
pub struct Trusting {
    keys: Keys,
    tokens: Tokens,
    client: reqwest::Client,
    url: String,
    period: Duration,
}

impl Trusting {
    /// The keys as they were last heard of.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Has each request tell who asks, and the playground open signed in where this is development.
    pub fn identified(&self, routes: Router, environment: Environment) -> Router {
        let this = self.clone();
        let token = move || {
            let this = this.clone();
            async move { this.demo_token().await }
        };
        bearer::identified(routes, self.tokens.verifier(self.keys.clone())).merge(demo::route(environment, token))
    }

    async fn demo_token(&self) -> anyhow::Result<String> {
        let users_url = self.url.strip_suffix(keys::PATH).context("the keys are not those of ms-users")?;
        demo::login(&self.client, users_url, ADMIN_EMAIL, ADMIN_PASSWORD).await
    }

    /// Keeps the keys up to date until `shutdown`.
    pub async fn follow(&self, shutdown: &CancellationToken) {
        self.keys.follow(self.period, shutdown, || load(&self.client, &self.url)).await;
    }
}

async fn load(client: &reqwest::Client, url: &str) -> anyhow::Result<Published> {
    let document = match url.strip_prefix("file://") {
        Some(path) => tokio::fs::read(path).await.with_context(|| format!("cannot read {path}"))?,
        None => fetch(client, url).await.with_context(|| format!("cannot get {url}"))?,
    };
    serde_json::from_slice(&document).with_context(|| format!("{url} is no set of keys"))
}

async fn fetch(client: &reqwest::Client, url: &str) -> anyhow::Result<Vec<u8>> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        document.extend_from_slice(&chunk);
        anyhow::ensure!(document.len() <= MAX_BYTES, "it is longer than {MAX_BYTES} bytes");
    }
    Ok(document)
}
