use std::fmt::Debug;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dev::instance::{self, Instance};
use dev::log;
use reqwest::{Certificate, Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::permit::Permit;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Cargo's profile of the programs under test: that of the test itself.
pub(crate) const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// One service: where it answers, and its process while it has one.
pub(crate) struct Service {
    program: &'static str,
    api: Api,
    folder: Box<Path>,
    environment: Vec<(String, String)>,
    instance: Option<Instance>,
    permit: Option<Arc<Permit>>,
}

/// What a service is to the world.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    http: Client,
    /// Of whoever asks.
    token: String,
}

impl Deref for Service {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Service {
    /// Not running yet. It is asked with this token.
    pub(crate) fn new(
        program: &'static str,
        url: &str,
        folder: &Path,
        environment: &[(String, String)],
        token: &str,
    ) -> Self {
        // A connection to a process that was killed since is of no use to the next request.
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(DEADLINE);
        // Whom ms-orders trusts, a test does.
        let authorities = environment.iter().find(|(name, _)| name == "INVENTORY_CA_FILE");
        let read = |file: &String| Certificate::from_pem_bundle(&fs::read(file).unwrap()).unwrap();
        let trusted = authorities.map(|(_, file)| read(file)).unwrap_or_default();
        let http = http.tls_certs_only(trusted).build().unwrap();
        let api = Api { url: url.to_owned(), http, token: token.to_owned() };
        Self { program, api, folder: folder.into(), environment: environment.to_vec(), instance: None, permit: None }
    }

    /// Keeps the permit of the set of services it is one of; the last of them gives it back.
    pub(crate) fn keep(&mut self, permit: &Arc<Permit>) {
        self.permit = Some(Arc::clone(permit));
    }

    /// Changes what its next process finds in its environment.
    pub(crate) fn tell(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Changes the token it is asked with.
    pub(crate) fn ask_with(&mut self, token: &str) {
        self.api = self.api.asked_by(token);
    }

    /// Starts its process.
    pub(crate) fn spawn(&mut self) {
        let program = instance::program(self.program, PROFILE).unwrap();
        let instance = Instance::spawn(&self.folder, self.program, &program, &self.environment, &self.api.url);
        self.instance = Some(instance.unwrap());
    }

    /// Starts its process, and waits until it has everything it uses.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.up().await;
    }

    /// Waits until it has everything it uses.
    pub(crate) async fn up(&self) {
        let up = async || self.get("/health").await.is_some_and(|(status, _)| status == StatusCode::OK);
        eventually(&format!("{} has all it uses", self.program), up).await;
    }

    /// Ends its process wherever it is.
    pub(crate) fn kill9(&mut self) {
        self.running().kill9();
    }

    /// Tells it to stop; what is returned ends when it has.
    pub(crate) fn terminate(&mut self) -> JoinHandle<ExitStatus> {
        let instance = self.running();
        spawn_blocking(|| instance.terminate().unwrap())
    }

    /// Stops it in order.
    pub(crate) async fn stop(&mut self) {
        let status = self.terminate().await.unwrap();
        assert!(status.success(), "{} stopped with {status}", self.program);
    }

    fn running(&mut self) -> Instance {
        self.instance.take().expect("it runs")
    }
}

impl Api {
    /// The token it is asked with.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The same, asked with another token; none if it is empty.
    pub(crate) fn asked_by(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// What it answers to a GET; `None` where it does not answer at all.
    pub(crate) async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        let status = response.status();
        Some((status, response.text().await.ok()?))
    }

    /// What a client that accepts these media types gets.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> String {
        let response = self.http.get(format!("{}{path}", self.url)).header("accept", accept).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        response.text().await.unwrap()
    }

    /// A POST of this body to `/graphql`, as JSON.
    pub(crate) async fn post(&self, body: String) -> reqwest::Result<reqwest::Response> {
        let request = self.http.post(format!("{}/graphql", self.url)).header("content-type", "application/json");
        let request = if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
        request.body(body).send().await
    }

    /// Sends a GraphQL request; an error where it was not answered, or not in whole.
    pub(crate) async fn send(&self, query: &str, variables: &Value) -> reqwest::Result<Value> {
        self.post(json!({"query": query, "variables": variables}).to_string()).await?.json().await
    }

    /// Sends a GraphQL request that has to be answered, and returns the answer of its only field.
    pub(crate) async fn ask(&self, query: &str, variables: Value) -> Value {
        let mut response = self.send(query, &variables).await.unwrap();
        assert!(response["errors"].is_null(), "{response:.1000} to {query}");
        let fields = response["data"].as_object_mut().unwrap();
        fields.values_mut().next().unwrap().take()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let (true, Some(instance)) = (std::thread::panicking(), &self.instance) {
            eprintln!("The end of the log of {}:\n{}", self.program, log::tail(instance.log_path(), 40));
        }
    }
}

/// Waits until the condition holds, with a deadline.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "still not so after {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until `now` is `expected`, with a deadline.
pub(crate) async fn becomes<T: PartialEq + Debug>(expected: T, now: impl AsyncFn() -> T) {
    let begun = Instant::now();
    loop {
        let seen = now().await;
        if seen == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "not {expected:?} after {} s, but {seen:?}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
