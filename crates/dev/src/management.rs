//! The HTTP API of RabbitMQ's management plugin: what tests and `cargo dev` ask of a broker beside AMQP.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, SendBody};

/// The management API of one broker.
#[derive(Clone, Debug)]
pub struct Management {
    agent: Agent,
    base_url: String,
    user: String,
    authorization: String,
}

#[derive(Deserialize)]
struct Connection {
    name: String,
    vhost: String,
}

impl Management {
    /// `base_url` is the management UI's, `user` an administrator.
    pub fn new(base_url: &str, user: &str, password: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            // A proxy has no business on the loopback interface.
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            user: user.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
        }
    }

    /// The broker's version, once it answers.
    pub fn version(&self) -> Result<String> {
        let mut response = self.send(&Method::GET, "/api/overview", None)?;
        let overview: Value = response.body_mut().read_json()?;
        Ok(overview["rabbitmq_version"].as_str().context("no rabbitmq_version in the overview")?.to_owned())
    }

    /// Names of the nodes of the cluster that run.
    pub fn running_nodes(&self) -> Result<Vec<String>> {
        let nodes: Vec<Value> = self.send(&Method::GET, "/api/nodes", None)?.body_mut().read_json()?;
        let running = nodes.iter().filter(|node| node["running"] == true);
        Ok(running.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect())
    }

    /// Makes an empty vhost in which our user may do everything.
    pub fn create_vhost(&self, vhost: &str) -> Result<()> {
        self.send(&Method::PUT, &format!("/api/vhosts/{vhost}"), None)?;
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.send(&Method::PUT, &format!("/api/permissions/{vhost}/{}", self.user), Some(&everything))?;
        Ok(())
    }

    /// Deletes a vhost with all in it; its connections are closed by the broker.
    pub fn delete_vhost(&self, vhost: &str) -> Result<()> {
        self.send(&Method::DELETE, &format!("/api/vhosts/{vhost}"), None).map(drop)
    }

    /// Closes every connection of a vhost from the broker's side, and returns how many there were.
    pub fn close_connections(&self, vhost: &str, reason: &str) -> Result<usize> {
        let all: Vec<Connection> = self.send(&Method::GET, "/api/connections", None)?.body_mut().read_json()?;
        let mut closed = 0;
        for connection in all.iter().filter(|connection| connection.vhost == vhost) {
            let path = format!("/api/connections/{}", path_segment(&connection.name));
            let request = self.request(&Method::DELETE, &path).header("x-reason", reason);
            let response = self.agent.run(request.body(SendBody::none())?)?;
            // One that closes by itself in this moment is as good as closed.
            ensure!(
                response.status().is_success() || response.status() == StatusCode::NOT_FOUND,
                "{path}: {response:?}"
            );
            closed += 1;
        }
        Ok(closed)
    }

    fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let request = self.request(method, path);
        let mut response = match body {
            Some(body) => self.agent.run(request.body(serde_json::to_vec(body)?)?),
            None => self.agent.run(request.body(SendBody::none())?),
        }
        .with_context(|| format!("{method} {}{path}", self.base_url))?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            bail!("{method} {}{path}: {} {text}", self.base_url, response.status());
        }
        Ok(response)
    }

    fn request(&self, method: &Method, path: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
    }
}

/// Connection names hold spaces, colons and `>`.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
