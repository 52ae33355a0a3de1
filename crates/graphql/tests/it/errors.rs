//! What a client learns of an error, and what it does not.

use std::sync::{Arc, Mutex};

use reqwest::StatusCode;
use serde_json::json;

use crate::server::{Server, answer};

#[tokio::test]
async fn a_refusal_has_its_code_and_details() {
    let server = Server::start().await;
    let conflict = server.query("{ conflict }").await;
    assert_eq!(conflict.message(), "the stock has changed");
    assert_eq!(conflict.body["errors"][0]["extensions"], json!({ "code": "CONFLICT", "current": 7 }));

    // One field's refusal leaves its neighbours alone.
    let missing = server.query("{ missing __typename }").await;
    assert_eq!((missing.code(), missing.status), ("NOT_FOUND", StatusCode::OK));
    assert_eq!(missing.body["data"], json!({ "missing": null, "__typename": "Query" }));
}

#[tokio::test]
async fn a_fault_is_logged_once_and_hidden() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let server = Server::start().await;
    let answer = server.query("{ fault wordedFault parseFault __typename }").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["data"]["__typename"], "Query");
    assert!(!answer.body.to_string().contains("secret"), "{answer:?}");
    let errors = answer.body["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3);
    for error in errors {
        assert_eq!((&error["message"], &error["extensions"]["code"]), (&json!("internal error"), &json!("INTERNAL")));
        let trace = error["extensions"]["traceId"].as_str().unwrap();
        assert!(trace.len() == 32 && trace.chars().all(|digit| digit.is_ascii_hexdigit()), "{trace}");
        let path = error["path"][0].as_str().unwrap();
        let logged: Vec<_> = log.lines().into_iter().filter(|line| line.contains(path)).collect();
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert!(logged[0].contains("ERROR") && logged[0].contains(trace), "{logged:?}");
    }
    let chain = "reading the table: secret: the password is hunter2";
    assert!(log.lines().iter().any(|line| line.contains(chain)), "{:?}", log.lines());
}

#[tokio::test]
async fn a_panic_is_answered_and_the_connection_lives() {
    let server = Server::start().await;
    for _ in 0..3 {
        let answer = server.query("{ panic }").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"));
        assert!(!answer.body.to_string().contains("secret"), "{answer:?}");
    }
    assert_eq!(server.query("{ __typename }").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_the_library_refuses_is_invalid() {
    let server = Server::start().await;
    for query in [
        "{ item }",
        "{ item { nothing } }",
        "{ int }",
        r#"{ int(int: "a") }"#,
        "query($a: Int!) { int(int: $b) }",
        "query($a: Int!) { __typename }",
        "{ ...Nothing }",
        "{ item { number @nothing } }",
        "{ a: __typename a: item { number } }",
    ] {
        server.query(query).await.is_request_error("INVALID");
    }
    let many = server.query(&format!("{{ item {{ {} }} }}", "wrong ".repeat(500))).await;
    assert_eq!(many.body["errors"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn a_value_that_only_execution_refuses_is_invalid_too() {
    let server = Server::start().await;
    for (query, variables) in [
        ("query($int: Int!) { int(int: $int) }", json!({ "int": "a" })),
        ("query($int: Int!) { int(int: $int) }", json!({ "int": 3_000_000_000_u32 })),
        ("query($int: Int!) { int(int: $int) }", json!({})),
        ("query($int: Int!) { int(int: $int) }", json!({ "int": null })),
        ("query($input: Naming!) { named(input: $input) }", json!({ "input": { "name": 1, "tags": [] } })),
        ("query($input: Naming!) { named(input: $input) }", json!({ "input": 7 })),
        ("{ int(int: 99999999999) }", json!({})),
        ("{ positive(int: 0) }", json!({})),
        ("query($int: Int!) { positive(int: $int) }", json!({ "int": -1 })),
    ] {
        let answer = server.query_with(query, variables.clone()).await;
        assert_eq!(answer.code(), "INVALID", "{query} {variables} {answer:?}");
    }
}

#[tokio::test]
async fn a_syntax_error_says_what_was_expected_and_where() {
    let answer = Server::start().await.query("{ a(b: }").await;
    answer.is_request_error("INVALID");
    assert_eq!(answer.message(), "syntax error: expected value");
    assert_eq!(answer.body["errors"][0]["locations"], json!([{ "line": 1, "column": 8 }]));
}

/// Each field `may…` is nullable, each `must…` is not, and each `…Break` fails.
#[tokio::test]
async fn a_field_that_failed_is_null_or_makes_what_holds_it_null() {
    let server = Server::start().await;
    for (query, data) in [
        ("{ may { mayBreak } }", json!({ "may": { "mayBreak": null } })),
        ("{ may { number mayBreak } }", json!({ "may": { "number": 1, "mayBreak": null } })),
        ("{ may { mustBreak number } }", json!({ "may": null })),
        ("{ may { x: mustBreak } must { number } }", json!({ "may": null, "must": { "number": 1 } })),
        ("{ must { mustBreak } }", json!(null)),
        ("{ may { must { must { mustBreak } } number } }", json!({ "may": null })),
        ("{ may { must { may { mustBreak } number } } }", json!({ "may": { "must": { "may": null, "number": 1 } } })),
        ("{ may { mayList { mustBreak } } }", json!({ "may": { "mayList": [null, null] } })),
        ("{ may { mustList { mustBreak } number } }", json!({ "may": null })),
        (
            "{ may { mustList { mayBreak } } }",
            json!({ "may": { "mustList": [{ "mayBreak": null }, { "mayBreak": null }] } }),
        ),
        ("{ may { ...F } } fragment F on Node { ... on Node { a: must { b: mustBreak } } }", json!({ "may": null })),
        ("{ may { number } may { mustBreak } }", json!({ "may": null })),
        ("query A { may { mustBreak } } query B { must { number } }", json!({ "may": null })),
    ] {
        let name = query.starts_with("query").then_some("A");
        let answer = answer(server.post().json(&json!({ "query": query, "operationName": name }))).await;
        assert_eq!((answer.status, &answer.body["data"]), (StatusCode::OK, &data), "{query}");
        assert_eq!(answer.code(), "CONFLICT");
    }
    let mutation = server.query("mutation { a: change b: refuse c: change }").await;
    assert_eq!(mutation.body["data"], json!({ "a": true, "b": null, "c": true }));
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(Into::into).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
