//! What browsers are told with every answer.

use reqwest::header::HeaderMap;

use crate::server::{client, serve};

const EXPECTED: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
];

async fn headers(path: &str) -> HeaderMap {
    let served = serve(&[]).await;
    client().get(served.url(path)).send().await.unwrap().headers().clone()
}

#[tokio::test]
async fn an_answer_is_neither_framed_nor_kept_nor_run() {
    for path in ["/", "/nowhere"] {
        let headers = headers(path).await;
        for (name, value) in EXPECTED {
            assert_eq!(headers[name], value, "{name} of {path}");
        }
        assert_eq!(headers.get("strict-transport-security"), None, "without TLS it would lock people out");
    }
}

#[tokio::test]
async fn what_a_route_says_itself_stays() {
    let headers = headers("/page").await;
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["content-security-policy"], "frame-ancestors 'none'");
    assert_eq!(headers["x-frame-options"], "DENY");
}
