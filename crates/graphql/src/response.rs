//! Chooses the media type of an answer, and with it the status, and writes it.

use std::collections::BTreeMap;

use async_graphql::{ServerError, Value};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

use crate::{Refusal, errors};

/// A media type this server writes GraphQL responses in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`: a request error is still a 200, because a client that asks for plain JSON cannot tell our
    /// 400 from a proxy's.
    Json,
    /// `application/graphql-response+json`: the status says whether the request was executed.
    GraphqlResponse,
}

impl Media {
    /// What to write where the client names nothing it accepts, or nothing at all.
    pub(crate) const FALLBACK: Self = Self::Json;

    /// The one of the two that `Accept` prefers; `None` where it accepts neither.
    pub(crate) fn negotiate(accept: &Accept) -> Option<Self> {
        let (json, graphql) = (accept.preference(JSON), accept.preference(GRAPHQL_RESPONSE));
        match graphql.cmp(&json) {
            _ if json.is_none() && graphql.is_none() => None,
            std::cmp::Ordering::Greater => Some(Self::GraphqlResponse),
            // Who names both likes both and is offered the one that says more; who names neither (`*/*`, or no header)
            // may never have heard of it.
            std::cmp::Ordering::Equal if graphql.is_some_and(|preference| preference.named) => {
                Some(Self::GraphqlResponse)
            }
            _ => Some(Self::Json),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
        }
    }
}

const JSON: (&str, &str) = ("application", "json");
const GRAPHQL_RESPONSE: (&str, &str) = ("application", "graphql-response+json");
const HTML: (&str, &str) = ("text", "html");

/// What the client accepts, as its `Accept` headers say.
pub(crate) struct Accept<'a>(Vec<(&'a str, &'a str, u16)>);

/// How much a client wants a media type. Greater is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    per_mille: u16,
    named: bool,
}

impl<'a> Accept<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        Self(values.flat_map(|value| value.split(',')).filter_map(range).collect())
    }

    /// Whether it is a browser that wants a page.
    pub(crate) fn prefers_html(&self) -> bool {
        let html = self.preference(HTML);
        html > self.preference(JSON) && html > self.preference(GRAPHQL_RESPONSE)
    }

    /// The most specific range that matches decides. `None` where none does, or where that one says `q=0`.
    fn preference(&self, (kind, subtype): (&str, &str)) -> Option<Preference> {
        if self.0.is_empty() {
            return Some(Preference { per_mille: 1_000, named: false });
        }
        let matches = self.0.iter().filter_map(|&(range_kind, range_subtype, per_mille)| {
            let exact = (range_kind.eq_ignore_ascii_case(kind), range_subtype.eq_ignore_ascii_case(subtype));
            let specificity = match (exact, range_kind, range_subtype) {
                ((true, true), ..) => 2,
                ((true, false), _, "*") => 1,
                (_, "*", "*") => 0,
                _ => return None,
            };
            Some((specificity, per_mille))
        });
        let (specificity, per_mille) = matches.max()?;
        let named = specificity == 2;
        (per_mille > 0).then_some(Preference { per_mille, named })
    }
}

/// One media range: its two halves and its weight in thousandths.
fn range(text: &str) -> Option<(&str, &str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0));
    Some((kind, subtype, (weight * 1_000.0).round() as u16))
}

/// A request that ended at the door, whatever its document says: the status holds for both media types.
#[derive(Debug)]
pub(crate) struct Denied {
    status: StatusCode,
    refusal: Refusal,
}

impl Denied {
    pub(crate) fn new(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    pub(crate) fn method_not_allowed(message: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Refusal::invalid(message))
    }

    pub(crate) fn write(&self, media: Media) -> Response<Body> {
        let mut response = write_errors(self.status, &[errors::refused(&self.refusal)], media);
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = HeaderValue::from_static("GET, HEAD, POST");
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// Writes the result of a request that was well-formed. Its errors are settled.
pub(crate) fn write_executed(executed: async_graphql::Response, media: Media) -> Response<Body> {
    // An error without a path belongs to no field: nothing was executed, and there is no `data`, not even null.
    let is_request_error = executed.data == Value::Null
        && !executed.errors.is_empty()
        && executed.errors.iter().all(|e| e.path.is_empty());
    let status = match media {
        Media::GraphqlResponse if is_request_error => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let body = Written {
        errors: &executed.errors,
        data: (!is_request_error).then_some(&executed.data),
        extensions: &executed.extensions,
    };
    let mut response = write(status, &body, media);
    response.headers_mut().extend(executed.http_headers);
    response
}

/// Writes errors that stand for the whole request.
pub(crate) fn write_errors(status: StatusCode, errors: &[ServerError], media: Media) -> Response<Body> {
    let body = Written { errors, data: None, extensions: &BTreeMap::new() };
    write(status, &body, media)
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: &'a BTreeMap<String, Value>,
}

fn write(status: StatusCode, body: &Written, media: Media) -> Response<Body> {
    const HEADERS: [(HeaderName, HeaderValue); 2] = [
        // GET answers in three media types at one address.
        (header::VARY, HeaderValue::from_static("accept")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let mut bytes = Vec::with_capacity(1024);
    let status = match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => status,
        Err(error) => {
            tracing::error!(%error, "a response could not be written as JSON");
            bytes = br#"{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}"#.to_vec();
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(media.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().extend(HEADERS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_accept_header_chooses_the_media_type() {
        for (accept, expected) in [
            ("", Some(Media::Json)),
            ("*/*", Some(Media::Json)),
            ("application/*", Some(Media::Json)),
            ("application/json", Some(Media::Json)),
            ("application/graphql-response+json", Some(Media::GraphqlResponse)),
            ("Application/GraphQL-Response+JSON; charset=utf-8", Some(Media::GraphqlResponse)),
            ("application/json, application/graphql-response+json", Some(Media::GraphqlResponse)),
            ("application/graphql-response+json;q=0.9, application/json", Some(Media::Json)),
            ("application/graphql-response+json, application/json;q=0.9", Some(Media::GraphqlResponse)),
            ("application/graphql-response+json, */*", Some(Media::GraphqlResponse)),
            ("application/json;q=0, */*;q=0.1", Some(Media::GraphqlResponse)),
            ("application/json;q=0", None),
            ("text/html", None),
            ("nonsense", Some(Media::Json)),
        ] {
            assert_eq!(Media::negotiate(&Accept::of(&headers(accept))), expected, "{accept}");
        }
    }

    #[test]
    fn only_who_names_html_gets_a_page() {
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, expected) in [
            (chromium, true),
            ("text/html", true),
            ("text/html;q=0.5, application/json", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(Accept::of(&headers(accept)).prefers_html(), expected, "{accept}");
        }
    }
}
