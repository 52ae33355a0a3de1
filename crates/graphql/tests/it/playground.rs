//! What a browser gets.

use std::path::Path;

use crate::server::{Server, answer};

const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

#[tokio::test]
async fn a_browser_gets_the_page_and_what_it_loads() {
    let server = Server::start().await;
    let response = server.client.get(&server.url).header("accept", CHROMIUM).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(response.headers()["vary"], "accept");
    let page = response.text().await.unwrap();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playground/dist/index.html").exists();
    if !built {
        assert!(page.contains("cd playground &amp;&amp; npm ci &amp;&amp; npm run build"), "{page}");
        return;
    }
    let assets: Vec<&str> = page.split('"').filter(|text| text.starts_with("/playground/")).collect();
    assert!(assets.iter().any(|path| path.ends_with(".js")) && assets.iter().any(|path| path.ends_with(".css")));
    let origin = server.url.trim_end_matches("/graphql");
    for path in assets {
        let asset = server.client.get(format!("{origin}{path}")).send().await.unwrap();
        assert_eq!(asset.status(), 200, "{path}");
        let expected = if path.ends_with(".js") { "text/javascript" } else { "text/css" };
        assert_eq!(asset.headers()["content-type"], expected, "{path}");
        assert_eq!(asset.headers()["cache-control"], "public, max-age=31536000, immutable");
        let etag = asset.headers()["etag"].clone();
        let again = server.client.get(format!("{origin}{path}")).header("if-none-match", etag).send().await.unwrap();
        assert_eq!(again.status(), 304, "{path}");
    }
}

#[tokio::test]
async fn a_browser_that_asks_something_gets_the_answer() {
    let server = Server::start().await;
    let asked = server.client.get(&server.url).header("accept", CHROMIUM).query(&[("query", "{ __typename }")]);
    assert_eq!(answer(asked).await.body["data"]["__typename"], "Query");
}

#[tokio::test]
async fn what_is_no_asset_is_not_found() {
    let server = Server::start().await;
    let origin = server.url.trim_end_matches("/graphql");
    for path in ["/playground/nothing.js", "/playground/../Cargo.toml", "/playground/%2e%2e/Cargo.toml"] {
        let response = server.client.get(format!("{origin}{path}")).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
    }
}
