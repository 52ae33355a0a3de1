use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use url::Url;

/// How HTTP is served, and what a client is allowed.
#[derive(Debug, Clone, Args)]
pub struct Http {
    /// The certificate to show, with those between it and its authority, as a PEM file. With it the service speaks
    /// HTTPS, and nothing else.
    #[arg(long, env = "TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of the certificate, as a PEM file.
    #[arg(long, env = "TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,

    /// The most connections at once; the next one waits until one ends. Each takes a file descriptor, and a process has
    /// 1 024 of them where nobody says more.
    #[arg(long, env = "HTTP_MAX_CONNECTIONS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..))]
    pub http_max_connections: u32,

    /// How long a client may take for the head of a request, and how long a connection may be idle before it, in
    /// seconds. More than the 60 s for which most proxies keep theirs, so that none is closed while it is used.
    #[arg(long, env = "HTTP_HEAD_TIMEOUT_SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..))]
    pub http_head_timeout_seconds: u64,

    /// How long a request may take, from its head to its answer, in seconds.
    #[arg(long, env = "HTTP_REQUEST_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub http_request_timeout_seconds: u64,

    /// The origins whose pages may read our answers, such as `https://shop.example`, with commas between them; none
    /// where it is not set.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<Origin>,

    /// The header in which the proxy before us tells the client's address, such as `x-real-ip` or `x-forwarded-for`; of
    /// a list the last counts, which that proxy wrote. Only where nobody gets past the proxy. Where it is not set, the
    /// address is the one that is connected.
    #[arg(long, env = "CLIENT_ADDRESS_HEADER")]
    pub client_address_header: Option<HeaderName>,

    /// What one account, or one client that has not signed in, may ask for in a second, and ten times of it at once: a
    /// field costs 1, a page as many times what is in it as it has entries, a change 500. Each instance counts by itself. 0
    /// for as much as they like.
    #[arg(long, env = "RATE_LIMIT_COST_PER_SECOND", default_value_t = 100_000)]
    pub rate_limit_cost_per_second: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            tls_cert_file: None,
            tls_key_file: None,
            http_max_connections: 900,
            http_head_timeout_seconds: 75,
            http_request_timeout_seconds: 30,
            cors_allowed_origins: Vec::new(),
            client_address_header: None,
            rate_limit_cost_per_second: 100_000,
        }
    }
}

impl Http {
    /// See [`Self::http_request_timeout_seconds`].
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.http_request_timeout_seconds)
    }
}

/// Where a web page comes from, as a browser tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// As it stands in `Origin` and in the answer to it.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // No host has a `*` in its name, though URLs may.
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && !text.contains('*'));
        let url = url.ok_or("an origin is http:// or https:// with a host, such as https://shop.example")?;
        let origin = url.origin().ascii_serialization();
        match HeaderValue::try_from(text) {
            Ok(header) if origin == text => Ok(Self(header)),
            _ => Err(format!("as a browser tells it, this origin is {origin}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for fine in
            ["https://shop.example", " http://localhost:3000 ", "http://[::1]:8080", "https://xn--bcher-kva.example"]
        {
            assert_eq!(fine.parse::<Origin>().unwrap().header(), fine.trim());
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        let wrong = [
            ("*", "an origin is http"),
            ("null", "an origin is http"),
            ("", "an origin is http"),
            ("shop.example", "an origin is http"),
            ("file:///index.html", "an origin is http"),
            ("https://*.example", "an origin is http"),
            ("https://shop.example/", "is https://shop.example"),
            ("https://shop.example/path", "is https://shop.example"),
            ("https://shop.example:443", "is https://shop.example"),
            ("https://SHOP.example", "is https://shop.example"),
            ("https://bücher.example", "is https://xn--bcher-kva.example"),
            ("https://me@shop.example", "is https://shop.example"),
        ];
        for (text, reason) in wrong {
            let refused = text.parse::<Origin>().map_err(|error| error.contains(reason));
            assert_eq!(refused, Err(true), "{text}");
        }
    }
}
