//! Serves GraphiQL, built from its npm package and embedded here, because a page that loads it from a CDN is blank
//! where there is no internet.

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

/// What `npm run build` left in `playground/dist`; empty where it was not run before this crate was compiled.
#[derive(Embed)]
#[folder = "../../playground/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: &str = include_str!("playground.html");

/// In a frame of a foreign page, a click could be led onto the button that runs a mutation.
const UNFRAMED: &str = "frame-ancestors 'none'";

/// The page a browser gets at `/graphql`.
pub(crate) fn page() -> Response<Body> {
    const HEADERS: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // Its address stays the same while the names of the assets it loads change with each build.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(UNFRAMED)),
    ];
    let body = Dist::get("index.html").map_or_else(|| Body::from(NOT_BUILT), |page| Body::from(bytes(page)));
    let mut response = Response::new(body);
    response.headers_mut().extend(HEADERS);
    response
}

/// The files that the page loads.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/playground/{*path}", get(asset))
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response<Body> {
    let Some(file) = Dist::get(&path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // Vite names the files in `assets` after a hash of what is in them.
    let hashed = path.starts_with("assets/");
    let cache_control = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let etag = etag(&file);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
        // What is told with this takes the place of what the browser was told with the file.
        let headers = [(header::CACHE_CONTROL, cache_control), (header::CONTENT_SECURITY_POLICY, UNFRAMED)];
        return (StatusCode::NOT_MODIFIED, headers, [(header::ETAG, etag)]).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, file.metadata.mimetype().to_owned()),
        (header::CACHE_CONTROL, cache_control.to_owned()),
        // The editor's workers are bound by what their own files are answered with, and they load others.
        (header::CONTENT_SECURITY_POLICY, UNFRAMED.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ETAG, etag),
    ];
    (headers, Body::from(bytes(file))).into_response()
}

fn etag(file: &EmbeddedFile) -> String {
    let [a, b, c, d, e, f, g, h, ..] = file.metadata.sha256_hash();
    format!("\"{:016x}\"", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// The file is part of the binary, so nothing is copied.
fn bytes(file: EmbeddedFile) -> axum::body::Bytes {
    match file.data {
        std::borrow::Cow::Borrowed(data) => data.into(),
        std::borrow::Cow::Owned(data) => data.into(),
    }
}
