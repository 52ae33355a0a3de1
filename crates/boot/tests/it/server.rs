use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::routing::get;
use boot::client::ClientAddress;
use boot::config::Http;
use boot::http::Server;
use clap::Parser;
use reqwest::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    http: Http,
}

/// What is configured by these flags.
pub(crate) fn configured(flags: &[&str]) -> Result<Http, String> {
    let cli = Cli::try_parse_from([&["it"], flags].concat());
    cli.map(|cli| cli.http).map_err(|error| error.to_string())
}

/// A server with a few routes, as it runs.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: JoinHandle<anyhow::Result<()>>,
}

pub(crate) async fn serve(flags: &[&str]) -> Served {
    let whoami = async |Extension(ClientAddress(address)): Extension<ClientAddress>| address.to_string();
    let page = || async { [(CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")] };
    let routes = Router::new()
        .route("/", get(|| async { "hello" }).post(|| async { "posted" }))
        .route("/whoami", get(whoami))
        .route("/page", get(page));
    let server = Server::new(&configured(flags).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let ended = tokio::spawn(server.serve(listener, routes, shutdown.clone()));
    Served { address, shutdown, ended }
}

impl Served {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn connect(&self) -> Line {
        Line(TcpStream::connect(self.address).await.unwrap())
    }
}

/// A client that asks over plain HTTP.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().tls_certs_only([]).timeout(DEADLINE).build().unwrap()
}

/// A connection that is written to by hand.
pub(crate) struct Line(pub(crate) TcpStream);

impl Line {
    pub(crate) async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and with this text.
    pub(crate) async fn read_to(&mut self, text: &str) {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(text.as_bytes()) {
                read.push(self.0.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap();
    }

    /// Asks once, and reads the answer.
    pub(crate) async fn ask(&mut self) {
        self.write("GET / HTTP/1.1\r\nhost: it\r\n\r\n").await;
        self.read_to("hello").await;
    }

    /// Waits until the server closes it, and returns what was read by then.
    pub(crate) async fn closed(&mut self) -> String {
        let mut rest = String::new();
        tokio::time::timeout(DEADLINE, self.0.read_to_string(&mut rest)).await.unwrap().unwrap();
        rest
    }
}

impl Line {
    /// Waits until the server has ended it, in whatever way.
    pub(crate) async fn ended(&mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut rest)).await.unwrap().ok();
    }
}

/// An empty folder, deleted when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn create(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("boot-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
