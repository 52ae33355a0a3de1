//! Reads a GraphQL request from a POST body or a query string.

use std::borrow::Cow;

use async_graphql::{Extensions, Request, Value, Variables};
use axum::{
    extract::Query,
    http::{HeaderMap, StatusCode, Uri, header},
};
use serde::Deserialize;

use crate::{Refusal, document::nul, response::Denied};

/// The four parameters of the specification. Others are ignored, as it demands.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    query: String,
    operation_name: Option<String>,
    #[serde(default)]
    variables: Variables,
    #[serde(default)]
    extensions: Extensions,
}

/// Reads the JSON of a POST body.
pub(crate) fn from_body(body: &[u8]) -> Result<Request, Denied> {
    let parameters: Parameters = serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
    parameters.into_request()
}

/// Reads a GET request's query string, in which `variables` and `extensions` are JSON.
pub(crate) fn from_query_string(uri: &Uri) -> Result<Request, Denied> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Parts {
        query: Option<String>,
        operation_name: Option<String>,
        variables: Option<String>,
        extensions: Option<String>,
    }

    fn json<T: for<'a> Deserialize<'a>>(name: &str, text: Option<String>) -> Result<Option<T>, Denied> {
        // An empty form field is one that was left out.
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        serde_json::from_str(&text).map_err(|error| bad(format!("`{name}` is not a JSON object: {error}")))
    }

    let Query(parts) =
        Query::<Parts>::try_from_uri(uri).map_err(|error| bad(format!("the query string is malformed: {error}")))?;
    let parameters = Parameters {
        query: parts.query.ok_or_else(|| bad("`query` is missing"))?,
        operation_name: parts.operation_name.filter(|name| !name.is_empty()),
        variables: json("variables", parts.variables)?.unwrap_or_default(),
        extensions: json("extensions", parts.extensions)?.unwrap_or_default(),
    };
    parameters.into_request()
}

/// Whether a GET request asks something, and is not a visit to the playground.
pub(crate) fn has_query(uri: &Uri) -> bool {
    let parameters = uri.query().unwrap_or_default().split('&');
    parameters.filter_map(|parameter| parameter.split_once('=')).any(|(name, _)| name == "query")
}

/// Refuses a body in any form but JSON. A form, a text or a file can be posted by a foreign page with its visitor's
/// rights, JSON cannot.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), Denied> {
    let unsupported = |message| Err(Denied::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Refusal::invalid(message)));
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case("application/json") {
        return unsupported("the content type must be application/json");
    }
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    if charset.is_some_and(|(_, charset)| !charset.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return unsupported("the charset must be utf-8");
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("the body must not be compressed");
    }
    Ok(())
}

impl Parameters {
    fn into_request(self) -> Result<Request, Denied> {
        if self.variables.values().any(has_nul) {
            return Err(Denied::new(StatusCode::BAD_REQUEST, nul()));
        }
        let mut request = Request::new(self.query).variables(self.variables);
        request.operation_name = self.operation_name;
        request.extensions = self.extensions;
        Ok(request)
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::List(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Says in the client's words what is wrong with a body. It is parsed once more for that: only bad ones pay.
fn explain(body: &[u8], error: &serde_json::Error) -> Denied {
    use serde_json::Value;
    match serde_json::from_slice(body) {
        Err(error) => bad(format!("the body is not valid JSON: {error}")),
        Ok(Value::Array(_)) => bad("batches are not accepted: send one request at a time"),
        Ok(Value::Object(fields)) => bad(match fields.get("query") {
            None => "`query` is missing".to_owned(),
            Some(query) if !query.is_string() => "`query` must be a string".to_owned(),
            Some(_) if fields.get("operationName").is_some_and(|name| !name.is_string() && !name.is_null()) => {
                "`operationName` must be a string or null".to_owned()
            }
            Some(_) => ["variables", "extensions"]
                .into_iter()
                .find(|name| fields.get(*name).is_some_and(|value| !value.is_object() && !value.is_null()))
                .map_or_else(|| error.to_string(), |name| format!("`{name}` must be an object or null")),
        }),
        Ok(_) => bad("the body must be a JSON object with a `query`"),
    }
}

fn bad(message: impl Into<Cow<'static, str>>) -> Denied {
    Denied::new(StatusCode::BAD_REQUEST, Refusal::invalid(message))
}
