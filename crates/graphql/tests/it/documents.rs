//! A document that is remembered is answered as it was the first time.

use graphql::Limits;
use serde_json::{Value, json};

use crate::server::{Server, answer};

/// Asks a server that has seen the document with `known`, and one that has not, and returns the answer of both.
async fn answered_alike(query: &str, known: Value, variables: Value) -> Value {
    let (remembering, fresh) = (Server::start().await, Server::start().await);
    for _ in 0..3 {
        let answer = remembering.query_with(query, known.clone()).await;
        assert!(answer.body.get("errors").is_none(), "{query} {known}: {answer:?}");
    }
    let again = remembering.query_with(query, variables.clone()).await;
    let first = fresh.query_with(query, variables.clone()).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body), "{query} {variables}");
    again.body
}

#[tokio::test]
async fn variables_are_checked_in_each_request() {
    let query = "query($int: Int!) { int(int: $int) }";
    for variables in [
        json!({ "int": 2 }),
        json!({ "int": -2 }),
        json!({ "int": "2" }),
        json!({ "int": 2.5 }),
        json!({ "int": true }),
        json!({ "int": 1_u64 << 40 }),
        json!({ "int": null }),
        json!({ "int": [2] }),
        json!({}),
    ] {
        answered_alike(query, json!({ "int": 1 }), variables).await;
    }
    let query = "query($input: Naming!) { named(input: $input) }";
    for variables in [json!({ "input": { "name": "b", "tags": [] } }), json!({ "input": { "name": "b" } })] {
        answered_alike(query, json!({ "input": { "name": "a", "tags": ["t"] } }), variables).await;
    }
}

#[tokio::test]
async fn values_of_variables_count_in_each_request() {
    let query = "query($size: Int!) { items(size: $size) { number } }";
    let body = answered_alike(query, json!({ "size": 1 }), json!({ "size": 3 })).await;
    assert_eq!(body["data"]["items"].as_array().unwrap().len(), 3);
    let body = answered_alike(query, json!({ "size": 1 }), json!({ "size": 1_000_000 })).await;
    assert_eq!(body["errors"][0]["extensions"]["code"], "TOO_COMPLEX");

    let query = "query($yes: Boolean!) { item { number same @include(if: $yes) { number } } }";
    let body = answered_alike(query, json!({ "yes": true }), json!({ "yes": false })).await;
    assert_eq!(body, json!({ "data": { "item": { "number": 1 } } }));
    let body = answered_alike(query, json!({ "yes": false }), json!({ "yes": true })).await;
    assert_eq!(body["data"]["item"]["same"]["number"], 1);
}

#[tokio::test]
async fn each_operation_of_a_document_is_its_own() {
    let server = Server::start().await;
    let query = "query A { id(id: 1) } query B { id(id: 2) }";
    let ask =
        async |name: Value| answer(server.post().json(&json!({ "query": query, "operationName": name }))).await.body;
    for _ in 0..3 {
        assert_eq!(ask(json!("A")).await, json!({ "data": { "id": "1" } }));
        assert_eq!(ask(json!("B")).await, json!({ "data": { "id": "2" } }));
        assert!(ask(json!(null)).await["errors"].is_array());
        assert!(ask(json!("C")).await["errors"].is_array());
    }
}

#[tokio::test]
async fn a_mutation_that_is_known_is_still_not_sent_by_get() {
    let server = Server::start().await;
    for _ in 0..2 {
        assert_eq!(server.query("mutation { change }").await.status, 200);
    }
    let answer = answer(server.get().query(&[("query", "mutation { change }")])).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn what_was_refused_is_refused_again() {
    let server = Server::with(Limits { introspection: false, ..Limits::default() }).await;
    for _ in 0..3 {
        server.query("{ nothing }").await.is_request_error("INVALID");
        server.query("{ __schema { types { name } } }").await.is_request_error("FORBIDDEN");
        server.query("{ text(text: 1) }").await.is_request_error("INVALID");
    }
}
