//! The HTTP API of RabbitMQ's management plugin: what tests and `cargo dev` ask of a broker beside AMQP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body, SendBody};

use crate::logins::Logins;

/// The management API of one broker.
#[derive(Clone, Debug)]
pub struct Management {
    agent: Agent,
    base_url: String,
    authorization: String,
}

#[derive(Deserialize)]
struct Permission {
    user: String,
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
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
        }
    }

    /// Where it is.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The broker's version, once it answers.
    pub fn version(&self) -> Result<String> {
        self.overview("rabbitmq_version")
    }

    /// The version of Erlang it runs on.
    pub fn erlang_version(&self) -> Result<String> {
        self.overview("erlang_version")
    }

    fn overview(&self, field: &str) -> Result<String> {
        let overview: Value = self.send(&Method::GET, "/api/overview", None)?.body_mut().read_json()?;
        let value = overview[field].as_str().with_context(|| format!("no {field} in the overview"))?;
        Ok(value.to_owned())
    }

    /// Names of the nodes of the cluster that run.
    pub fn running_nodes(&self) -> Result<Vec<String>> {
        let nodes: Vec<Value> = self.send(&Method::GET, "/api/nodes", None)?.body_mut().read_json()?;
        let running = nodes.iter().filter(|node| node["running"] == true);
        Ok(running.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect())
    }

    /// Sets users, their passwords and permissions, and exchanges; again, it changes back what was changed since.
    ///
    /// One after the other: once RabbitMQ has imported definitions, it collects the garbage of all its processes, which on a busy
    /// machine stops all that it does for ten seconds and more (3.10, `rabbit_definitions:apply_defs`).
    pub fn import(&self, logins: &Logins) -> Result<()> {
        for user in logins.each("users") {
            let tags: Vec<&str> = user["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let login = json!({"password": user["password"], "tags": tags.join(",")});
            self.send(&Method::PUT, &format!("/api/users/{}", path_of(user, &["name"])), Some(&login))?;
        }
        for permission in logins.each("permissions") {
            let path = format!("/api/permissions/{}", path_of(permission, &["vhost", "user"]));
            self.send(&Method::PUT, &path, Some(permission))?;
        }
        for exchange in logins.each("exchanges") {
            let path = format!("/api/exchanges/{}", path_of(exchange, &["vhost", "name"]));
            self.send(&Method::PUT, &path, Some(exchange))?;
        }
        Ok(())
    }

    /// Makes an empty vhost.
    pub fn create_vhost(&self, vhost: &str) -> Result<()> {
        self.send(&Method::PUT, &format!("/api/vhosts/{}", path_segment(vhost)), None).map(drop)
    }

    /// Deletes a vhost with all in it; its connections are closed by the broker.
    pub fn delete_vhost(&self, vhost: &str) -> Result<()> {
        self.send(&Method::DELETE, &format!("/api/vhosts/{}", path_segment(vhost)), None).map(drop)
    }

    /// Makes a user who may do everything in `vhost` and nothing elsewhere.
    pub fn create_user(&self, user: &str, password: &str, vhost: &str) -> Result<()> {
        let login = json!({"password": password, "tags": ""});
        self.send(&Method::PUT, &format!("/api/users/{}", path_segment(user)), Some(&login))?;
        self.permit(user, vhost, &json!({"configure": ".*", "write": ".*", "read": ".*"}))
    }

    /// Sets what a user may do in `vhost`: a regular expression for each kind of permission.
    pub fn permit(&self, user: &str, vhost: &str, permissions: &Value) -> Result<()> {
        let path = format!("/api/permissions/{}/{}", path_segment(vhost), path_segment(user));
        self.send(&Method::PUT, &path, Some(permissions)).map(drop)
    }

    /// Bounds a queue to so many messages; it refuses those beyond.
    pub fn limit_queue(&self, vhost: &str, queue: &str, max_length: u32) -> Result<()> {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        let policy = json!({"pattern": pattern, "definition": {"max-length": max_length}, "apply-to": "queues"});
        self.send(&Method::PUT, &policy_path(vhost, queue), Some(&policy)).map(drop)
    }

    /// Raises the bound of [`limit_queue`](Self::limit_queue) beyond what a test publishes. RabbitMQ 3.10 tells its own
    /// publisher, which dead-letters, only that a queue falls below its limit, and not that the limit is gone.
    pub fn raise_limit(&self, vhost: &str, queue: &str) -> Result<()> {
        self.limit_queue(vhost, queue, 1_000_000)
    }

    /// The arguments a queue was declared with.
    pub fn queue_arguments(&self, vhost: &str, queue: &str) -> Result<Value> {
        let path = format!("/api/queues/{}/{}", path_segment(vhost), path_segment(queue));
        let queue: Value = self.send(&Method::GET, &path, None)?.body_mut().read_json()?;
        Ok(queue["arguments"].clone())
    }

    /// Deletes a user, whose connections are closed by the broker.
    pub fn delete_user(&self, user: &str) -> Result<()> {
        self.send(&Method::DELETE, &format!("/api/users/{}", path_segment(user)), None).map(drop)
    }

    /// Closes every connection of everyone who may use `vhost`, from the broker's side.
    ///
    /// By user, because the list of connections knows of a new one only seconds later.
    pub fn close_connections(&self, vhost: &str, reason: &str) -> Result<()> {
        let path = format!("/api/vhosts/{}/permissions", path_segment(vhost));
        let permissions: Vec<Permission> = self.send(&Method::GET, &path, None)?.body_mut().read_json()?;
        for permission in permissions {
            let path = format!("/api/connections/username/{}", path_segment(&permission.user));
            let request = self.request(&Method::DELETE, &path).header("x-reason", reason);
            check(self.agent.run(request.body(SendBody::none())?)?)?;
        }
        Ok(())
    }

    fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let request = self.request(method, path);
        let response = match body {
            Some(body) => self.agent.run(request.body(serde_json::to_vec(body)?)?),
            None => self.agent.run(request.body(SendBody::none())?),
        };
        response.map_err(Into::into).and_then(check).with_context(|| format!("{method} {}{path}", self.base_url))
    }

    fn request(&self, method: &Method, path: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
    }
}

fn check(mut response: Response<Body>) -> Result<Response<Body>> {
    let status = response.status();
    if !status.is_success() {
        bail!("{status} {}", response.body_mut().read_to_string().unwrap_or_default());
    }
    Ok(response)
}

fn policy_path(vhost: &str, queue: &str) -> String {
    format!("/api/policies/{}/{}", path_segment(vhost), path_segment(&format!("limit-{queue}")))
}

/// The values of these fields, as segments of a path.
fn path_of(definition: &Value, fields: &[&str]) -> String {
    let segment = |field: &&str| path_segment(definition[*field].as_str().unwrap_or_default());
    fields.iter().map(segment).collect::<Vec<_>>().join("/")
}

/// The default vhost is called `/`.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
