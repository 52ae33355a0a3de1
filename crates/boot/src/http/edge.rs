//! What browsers are told with every answer.

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::Response;
use tower_http::cors::CorsLayer;

use crate::config::{Http, Origin};

/// For an answer that is data and no page; a route that answers with a page says more.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    // The same for browsers that know no `frame-ancestors`.
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// A year, as lists of such hosts ask for. Without their subdomains, which may be somebody else's.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How long a browser need not ask again whether it may ask; the longest that any keeps to.
const CORS_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Adds the headers of [`HEADERS`] where a route has not set them, and lets pages of other origins in that are allowed.
pub(super) fn guard(routes: Router, config: &Http) -> Router {
    let tls = config.tls_cert_file.is_some();
    let routes = match config.cors_allowed_origins.as_slice() {
        [] => routes,
        origins => routes.layer(cors(origins)),
    };
    // One layer for all of them: axum boxes each.
    routes.layer(map_response(move |mut response: Response| {
        let headers = response.headers_mut();
        for (name, value) in HEADERS.into_iter().chain(tls.then_some((STRICT_TRANSPORT_SECURITY, ONLY_TLS))) {
            headers.entry(name).or_insert(value);
        }
        std::future::ready(response)
    }))
}

fn cors(origins: &[Origin]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins.iter().map(Origin::header).collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("traceparent")])
        .max_age(CORS_MAX_AGE)
}
