//! Signing in by accounts that everybody knows, and the token the playground opens with in development.

use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use boot::config::Environment;
use reqwest::Client;
use serde_json::{Value, json};

/// How long ms-users may take to check a password: longer than it has others wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the playground asks for it.
pub const PATH: &str = "/playground/token";

/// Gives `token` to the playground, in development. Anywhere else there is nothing to give.
pub fn route<F>(environment: Environment, token: impl Fn() -> F + Clone + Send + Sync + 'static) -> Router
where
    F: Future<Output = anyhow::Result<String>> + Send,
{
    let answer = move || async move {
        if environment == Environment::Production {
            return StatusCode::NO_CONTENT.into_response();
        }
        match token().await {
            Ok(token) => Json(json!({"authorization": format!("Bearer {token}")})).into_response(),
            // Without demo accounts the playground opens without a token.
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "there is no demo token");
                StatusCode::NO_CONTENT.into_response()
            }
        }
    };
    Router::new().route(PATH, get(answer))
}

/// An access token of an account, by its password.
///
/// # Errors
/// When ms-users is away, or refuses.
pub async fn login(client: &Client, users_url: &str, email: &str, password: &str) -> anyhow::Result<String> {
    let query = "mutation($email: String!, $password: String!) {
      login(email: $email, password: $password) { accessToken }
    }";
    let request = json!({"query": query, "variables": {"email": email, "password": password}});
    let url = format!("{users_url}/graphql");
    let asked = client.post(&url).json(&request).timeout(PATIENCE).send().await;
    let answer: Value = asked.with_context(|| format!("cannot ask {url}"))?.json().await?;
    let token = answer["data"]["login"]["accessToken"].as_str();
    Ok(token.with_context(|| format!("{email} cannot log in: {answer}"))?.to_owned())
}
