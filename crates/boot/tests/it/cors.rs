//! Pages of which origins may read the answers.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use crate::server::{client, configured, serve};

const SHOP: &str = "https://shop.example";
const ORIGINS: [&str; 2] = ["--cors-allowed-origins", "https://shop.example,http://localhost:3000"];

async fn headers(flags: &[&str], method: Method, origin: &str) -> HeaderMap {
    let served = serve(flags).await;
    let request = client().request(method, served.url("/")).header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type, traceparent");
    request.send().await.unwrap().headers().clone()
}

fn cors(headers: &HeaderMap) -> Vec<String> {
    let told = headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    let mut told: Vec<_> = told.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    told.sort_unstable();
    told
}

#[tokio::test]
async fn an_allowed_origin_may_ask_and_read() {
    let preflight = headers(&ORIGINS, Method::OPTIONS, SHOP).await;
    let expected = [
        "access-control-allow-headers: authorization,content-type,traceparent",
        "access-control-allow-methods: GET,POST",
        "access-control-allow-origin: https://shop.example",
        "access-control-max-age: 7200",
    ];
    assert_eq!(cors(&preflight), expected);
    let answer = headers(&ORIGINS, Method::POST, "http://localhost:3000").await;
    assert_eq!(cors(&answer), ["access-control-allow-origin: http://localhost:3000"]);
    assert!(answer["vary"].to_str().unwrap().contains("origin"), "{answer:?}");
}

#[tokio::test]
async fn another_origin_is_not_told_that_it_may() {
    for origin in ["https://evil.example", "https://shop.example.evil.example", "http://shop.example", "null"] {
        for method in [Method::OPTIONS, Method::POST] {
            let told = headers(&ORIGINS, method, origin).await;
            assert_eq!(told.get("access-control-allow-origin"), None, "{origin}");
        }
    }
}

#[tokio::test]
async fn without_the_setting_nobody_is_told_anything() {
    let served = serve(&[]).await;
    let preflight = client().request(Method::OPTIONS, served.url("/")).header("origin", SHOP).send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(cors(preflight.headers()), [""; 0]);
    assert_eq!(cors(&headers(&[], Method::POST, SHOP).await), [""; 0]);
}

#[test]
fn what_is_no_origin_is_refused_at_the_start() {
    for (origins, reason) in [
        ("*", "an origin is http:// or https:// with a host"),
        ("https://shop.example/,http://localhost", "as a browser tells it, this origin is https://shop.example"),
        ("https://shop.example,,", "an origin is http:// or https:// with a host"),
    ] {
        let refused = configured(&["--cors-allowed-origins", origins]).unwrap_err();
        assert!(refused.contains(reason) && refused.contains("--cors-allowed-origins"), "{refused}");
    }
}
