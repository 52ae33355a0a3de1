//! Requests over HTTP/1.1, many at once, each connection kept alive.
//!
//! The load runs on one thread of its own, on hyper's low-level client: no pool, no redirects, no locks between
//! connections, so that little of a shared machine goes into asking.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// How long an answer may take before the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for, and how hard.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where each request is posted, such as `http://127.0.0.1:8000/graphql`. It is an address, not a name.
    pub url: String,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// When the next request leaves.
    pub pace: Pace,
    /// How long before anything is counted.
    pub warm_up: Duration,
    /// How long it is counted.
    pub length: Duration,
    /// The token of whoever asks, where that has to be known.
    pub token: Option<String>,
}

/// When the next request leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Closed loop: on each connection as soon as the last is answered. Measures throughput.
    Answered,
    /// Open loop: so many a second over all connections, whether or not the last are answered. A latency counts from
    /// when the request was due, so that a server that stalls is charged for all who would have asked meanwhile
    /// (no coordinated omission). The timer adds up to 1 ms.
    PerSecond(f64),
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Answers a second.
    pub per_second: f64,
    /// Answers that count.
    pub answers: u64,
    /// Their latencies in microseconds.
    pub latencies: Histogram<u64>,
}

impl Measured {
    /// The latency that so many of a hundred answers keep.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_percentile(percent))
    }
}

impl Load {
    /// Posts JSON bodies until the time is over and an answer counts. Requests are numbered from 0, across all connections:
    /// `body` makes the one of a number, and `check` looks at its answer.
    ///
    /// # Errors
    /// When any answer is not a 200, has GraphQL `errors`, or is not what `check` demands: then nothing was measured.
    pub async fn run(
        self,
        body: impl Fn(u64) -> Bytes + Send + Sync + 'static,
        check: impl Fn(u64, &str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Measured> {
        let uri: Uri = self.url.parse()?;
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, self.ask(uri, body, check))
        });
        thread.await?
    }

    async fn ask(
        self,
        uri: Uri,
        body: impl Fn(u64) -> Bytes + 'static,
        check: impl Fn(u64, &str) -> Result<(), String> + 'static,
    ) -> Result<Measured> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(Connection::open(&uri, self.token.as_deref()).await?);
        }
        let begin = Instant::now() + self.warm_up;
        let shared = Rc::new(Shared {
            numbers: Cell::new(0),
            start: Instant::now(),
            begin,
            end: Cell::new(begin + self.length),
            pace: self.pace,
            latencies: RefCell::new(Histogram::new(3)?),
            body,
            check,
        });
        let tasks = connections.into_iter().map(|connection| tokio::task::spawn_local(shared.clone().work(connection)));
        // The first that fails ends the measurement: the local set drops the others.
        futures::future::try_join_all(tasks.map(|task| async { task.await? })).await?;
        let latencies = shared.latencies.borrow().clone();
        let answers = latencies.len();
        let seconds = (shared.end.get() - begin).as_secs_f64();
        Ok(Measured { per_second: answers as f64 / seconds, answers, latencies })
    }
}

struct Shared<Body, Check> {
    numbers: Cell<u64>,
    start: Instant,
    /// What is counted begins.
    begin: Instant,
    /// What is counted ends; later where nothing counted yet.
    end: Cell<Instant>,
    pace: Pace,
    latencies: RefCell<Histogram<u64>>,
    body: Body,
    check: Check,
}

impl<Body: Fn(u64) -> Bytes, Check: Fn(u64, &str) -> Result<(), String>> Shared<Body, Check> {
    async fn work(self: Rc<Self>, mut connection: Connection) -> Result<()> {
        loop {
            let number = self.numbers.replace(self.numbers.get() + 1);
            let due = match self.pace {
                Pace::Answered => Instant::now(),
                Pace::PerSecond(rate) => self.start + Duration::from_secs_f64(number as f64 / rate),
            };
            if due >= self.end.get() && !self.latencies.borrow().is_empty() {
                return Ok(());
            }
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            let answer = tokio::time::timeout(PATIENCE, connection.post((self.body)(number))).await;
            let answer = answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
            let answered = Instant::now();
            self.examine(number, &answer)?;
            let counts = match self.pace {
                Pace::Answered if answered >= self.end.get() => {
                    let is_first = self.latencies.borrow().is_empty();
                    if is_first {
                        self.end.set(answered);
                    }
                    is_first
                }
                Pace::Answered => answered >= self.begin,
                Pace::PerSecond(_) => due >= self.begin,
            };
            if counts {
                let latency = u64::try_from((answered - due).as_micros())?;
                self.latencies.borrow_mut().record(latency.max(1))?;
            }
        }
    }

    fn examine(&self, number: u64, answer: &[u8]) -> Result<()> {
        let answer = std::str::from_utf8(answer).context("an answer is not UTF-8")?;
        if answer.contains("\"errors\":") {
            bail!("an answer has errors: {answer}");
        }
        (self.check)(number, answer).map_err(|wrong| anyhow::anyhow!("{wrong}: {answer}"))
    }
}

/// One connection, kept alive.
struct Connection {
    uri: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(uri: &Uri, token: Option<&str>) -> Result<Self> {
        let authority = uri.authority().with_context(|| format!("{uri} has no address"))?.as_str();
        let stream = TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends it, the sender tells as well.
        tokio::task::spawn_local(async { connection.await.ok() });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authorization = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
        Ok(Self { uri: path.parse()?, host: authority.parse()?, authorization, sender })
    }

    async fn post(&mut self, body: Bytes) -> Result<Bytes> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.sender.ready().await.context("the connection was closed")?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}
