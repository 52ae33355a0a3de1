//! The token the playground opens with in development: the demo ADMIN's, whose password everybody knows.

use anyhow::Context;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use boot::config::Environment;
use boot::demo::{ADMIN_EMAIL, ADMIN_PASSWORD};
use serde_json::{Value, json};

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

/// Has ms-users sign the demo ADMIN in.
///
/// # Errors
/// When it is away, or has no demo accounts.
pub async fn login(client: &reqwest::Client, users_url: &str) -> anyhow::Result<String> {
    let query = "mutation($email: String!, $password: String!) {
      login(email: $email, password: $password) { accessToken }
    }";
    let request = json!({"query": query, "variables": {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}});
    let answer: Value = client.post(format!("{users_url}/graphql")).json(&request).send().await?.json().await?;
    let token = answer["data"]["login"]["accessToken"].as_str();
    Ok(token.with_context(|| format!("refused: {}", answer["errors"][0]["message"]))?.to_owned())
}
