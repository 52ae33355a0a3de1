//! How a request comes in and goes out.

use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use graphql::Limits;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    schema,
    server::{GRAPHQL_RESPONSE, Server, answer},
};

#[tokio::test]
async fn the_media_type_is_what_the_client_accepts() {
    let server = Server::start().await;
    for (accept, expected) in [
        (None, "application/json; charset=utf-8"),
        (Some("*/*"), "application/json; charset=utf-8"),
        (Some("application/json"), "application/json; charset=utf-8"),
        (Some(GRAPHQL_RESPONSE), "application/graphql-response+json; charset=utf-8"),
    ] {
        let mut request = server.client.post(&server.url).json(&json!({ "query": "{ __typename }" }));
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let answer = answer(request).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, expected), "{accept:?}");
        assert_eq!(answer.body, json!({ "data": { "__typename": "Query" } }));
    }
    let picture = server.client.get(&server.url).header("accept", "image/png").query(&[("query", "{ __typename }")]);
    let answer = answer(picture).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_ACCEPTABLE, "INVALID"));
}

#[tokio::test]
async fn a_request_error_has_no_data_and_a_status_of_its_media_type() {
    let server = Server::start().await;
    for query in ["{", "{ nothing }", "query A { __typename } query B { __typename }", "subscription { a }"] {
        for (accept, status) in [(GRAPHQL_RESPONSE, 400), ("application/json", 200)] {
            let request = server.client.post(&server.url).header("accept", accept).json(&json!({ "query": query }));
            let answer = answer(request).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (status, "INVALID"), "{query}");
            assert!(answer.body.get("data").is_none(), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_error_of_a_field_is_a_200_with_data_null() {
    let answer = Server::start().await.query("{ conflict }").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["data"], json!(null));
    assert_eq!(answer.body["errors"][0]["path"], json!(["conflict"]));
}

#[tokio::test]
async fn a_malformed_body_is_a_400_that_says_what_is_wrong() {
    let server = Server::start().await;
    for (body, message) in [
        ("", "the body is not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "the body is not valid JSON: EOF while parsing an object at line 1 column 1"),
        ("1", "the body must be a JSON object with a `query`"),
        ("{}", "`query` is missing"),
        (r#"{"query": null}"#, "`query` must be a string"),
        (r#"{"query": 1}"#, "`query` must be a string"),
        (r#"{"query": "{a}", "operationName": 1}"#, "`operationName` must be a string or null"),
        (r#"{"query": "{a}", "variables": []}"#, "`variables` must be an object or null"),
        (r#"{"query": "{a}", "extensions": "x"}"#, "`extensions` must be an object or null"),
        (r#"[{"query": "{a}"}]"#, "batches are not accepted: send one request at a time"),
        ("[]", "batches are not accepted: send one request at a time"),
    ] {
        for accept in [GRAPHQL_RESPONSE, "application/json"] {
            let request = server.client.post(&server.url).header("accept", accept);
            let answer = answer(request.header("content-type", "application/json").body(body)).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!((answer.code(), answer.message()), ("INVALID", message), "{body}");
        }
    }
}

#[tokio::test]
async fn absurd_json_is_a_400() {
    let server = Server::start().await;
    let deep = format!(r#"{{"query": "{{a}}", "variables": {{"a": {}"#, "[".repeat(100_000));
    server.send(deep).await.is_request_error("INVALID");
    server.send(b"{\"query\": \"{ \xff }\"}".to_vec()).await.is_request_error("INVALID");
    server.send(r#"{"query": "{a}", "query": "{a}"}"#).await.is_request_error("INVALID");
    server.send(r#"{"query": "\ud800"}"#).await.is_request_error("INVALID");
}

#[tokio::test]
async fn only_json_is_read_so_that_no_foreign_page_can_post() {
    let server = Server::start().await;
    let body = json!({ "query": "mutation { change }" }).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/jsonp"),
        Some("application/json; charset=utf-16"),
    ] {
        let mut request = server.post().body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = answer(request).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID"), "{content_type:?}");
    }
    let zipped = server.post().header("content-type", "application/json").header("content-encoding", "gzip");
    assert_eq!(answer(zipped.body(body.clone())).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let charset = server.post().header("content-type", r#"Application/JSON; charset="UTF-8""#);
    assert_eq!(answer(charset.body(body)).await.body, json!({ "data": { "change": true } }));
}

#[tokio::test]
async fn a_get_reads_and_cannot_write() {
    let server = Server::start().await;
    let query = "query A($int: Int!) { int(int: $int) } query B { __typename } mutation M { change }";
    let a = [("query", query), ("operationName", "A"), ("variables", r#"{"int": 7}"#), ("extensions", "")];
    assert_eq!(answer(server.get().query(&a)).await.body, json!({ "data": { "int": 7 } }));

    let m = answer(server.get().query(&[("query", query), ("operationName", "M")])).await;
    assert_eq!((m.status, m.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, POST"), "{m:?}");
    assert_eq!(m.message(), "only a query can be sent by GET: send a mutation by POST");
    let anonymous = answer(server.get().query(&[("query", "mutation { change }"), ("operationName", "")])).await;
    assert_eq!(anonymous.status, StatusCode::METHOD_NOT_ALLOWED);

    answer(server.get().query(&[("query", query)])).await.is_request_error("INVALID");
    answer(server.get().query(&[("query", query), ("variables", "7")])).await.is_request_error("INVALID");
    let snake = answer(server.get().query(&[("query", query), ("operation_name", "B")])).await;
    snake.is_request_error("INVALID");
    let nothing = answer(server.get()).await;
    nothing.is_request_error("INVALID");
    assert_eq!(nothing.message(), "`query` is missing");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let server = Server::start().await;
    for method in [reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::PATCH, reqwest::Method::OPTIONS] {
        let answer = answer(server.client.request(method, &server.url)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "INVALID"));
        assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    }
    let head = server.client.head(&server.url).query(&[("query", "mutation { change }")]).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_body_too_large_is_refused_whether_announced_or_not() {
    let server = Server::with(Limits { max_body_bytes: 1_000, ..Limits::default() }).await;
    let body = json!({ "query": "{ __typename }", "padding": "x".repeat(2_000) }).to_string();
    let announced = server.send(body.clone()).await;
    assert_eq!((announced.status, announced.code()), (StatusCode::PAYLOAD_TOO_LARGE, "TOO_COMPLEX"));
    assert_eq!(announced.message(), "the body is larger than 1000 bytes");

    // One that is still being sent when the answer comes back is answered, too.
    let huge = server.send("x".repeat(10_000_000)).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);

    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = raw(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_504() {
    let limits = Limits { request_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::with(limits).await;
    let answer = server.query("{ sleep(millis: 60000) }").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::GATEWAY_TIMEOUT, "INTERNAL"), "{answer:?}");
    assert_eq!(answer.message(), "timed out after 0.2 s");

    // So is one whose body never comes.
    let started = Instant::now();
    let head = "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
                content-length: 20\r\n\r\n{";
    let answer = raw(&server, head).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_resolver_sees_the_request_and_its_trace_id() {
    let server = Server::serve(graphql::router(schema::build(), Limits::default())).await;
    let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let request = server.post().header("x-color", HeaderValue::from_static("green")).header("traceparent", parent);
    let answer = answer(request.json(&json!({ "query": r#"{ traceId header(name: "x-color") fault }"# }))).await;
    assert_eq!(answer.body["data"]["header"], "green");
    assert_eq!(answer.body["data"]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(answer.body["errors"][0]["extensions"]["traceId"], "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
#[should_panic(expected = "the root of queries has another name")]
async fn roots_of_other_names_do_not_start() {
    struct QueryRoot;
    #[async_graphql::Object]
    impl QueryRoot {
        async fn a(&self) -> bool {
            true
        }
    }
    let (mutation, subscription) = (async_graphql::EmptyMutation, async_graphql::EmptySubscription);
    let _ = graphql::router(async_graphql::Schema::build(QueryRoot, mutation, subscription), Limits::default());
}

/// Sends bytes as they stand and reads until the server closes.
async fn raw(server: &Server, request: &str) -> String {
    let address = server.url.trim_start_matches("http://").trim_end_matches("/graphql");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server closes").unwrap();
    answer
}
