//! The demo accounts of a system that `cargo dev up` started, and tokens for them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use ureq::Agent;

/// An account that ms-users opens by itself in development.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// What it may do.
    pub role: &'static str,
    /// Its e-mail address.
    pub email: &'static str,
    /// Its password, which everybody knows.
    pub password: &'static str,
}

/// Those of `boot::demo`, which a test compares: this crate is to compile without the services'.
pub const ACCOUNTS: [Account; 2] = [
    Account { role: "ADMIN", email: "admin@example.com", password: "admin-demo-password" },
    Account { role: "USER", email: "user@example.com", password: "user-demo-password" },
];

/// An access token of the demo ADMIN, valid for 15 minutes.
pub fn admin_token(users_url: &str) -> Result<String> {
    token(users_url, "ADMIN")
}

/// An access token of the demo account with this role, in upper or lower case; valid for 15 minutes.
pub fn token(users_url: &str, role: &str) -> Result<String> {
    let account = ACCOUNTS.into_iter().find(|account| account.role.eq_ignore_ascii_case(role));
    let Account { email, password, .. } = account.with_context(|| format!("no demo account is {role}"))?;
    let query =
        "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { accessToken } }";
    let agent: Agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).proxy(None).build().into();
    let request = json!({"query": query, "variables": {"email": email, "password": password}});
    let mut response = agent.post(format!("{users_url}/graphql")).send_json(request)?;
    let answer: Value = response.body_mut().read_json()?;
    let token = answer["data"]["login"]["accessToken"].as_str();
    Ok(token.with_context(|| format!("{users_url} did not let {email} in: {answer}"))?.to_owned())
}
