//! What one request may cost.

use std::time::{Duration, Instant};

use graphql::Limits;
use serde_json::json;

use crate::{schema, server::Server};

/// Levels of fragments that each spread the next one twice: 2^levels fields in about 40 bytes a level.
fn doubling(levels: usize) -> String {
    let fragments = (0..levels).map(|level| format!("fragment F{level} on Item {{ ...F{0} ...F{0} }} ", level + 1));
    format!("{{ item {{ ...F0 }} }} {}fragment F{levels} on Item {{ number }}", fragments.collect::<String>())
}

#[tokio::test]
async fn doubling_fragments_are_refused_at_once() {
    let server = Server::start().await;
    // Without this check the same document executes as far as it can: an eighth of a million fields take seconds.
    let bare = schema::build().finish();
    let started = Instant::now();
    assert!(bare.execute(doubling(16)).await.is_ok());
    let (unchecked, started) = (started.elapsed(), Instant::now());
    let answer = server.query(&doubling(24)).await;
    let checked = started.elapsed();
    println!("16 levels unchecked: {unchecked:?}; 24 levels checked: {checked:?}");
    answer.is_request_error("TOO_COMPLEX");
    assert_eq!(answer.message(), "the document has 16777217 fields, and at most 1000 are allowed");
    assert!(checked < Duration::from_millis(500), "{checked:?}");
}

#[tokio::test]
async fn fields_count_whatever_their_name() {
    let server = Server::start().await;
    let aliases = |count| format!("{{ {} }}", (0..count).map(|n| format!("a{n}: __typename ")).collect::<String>());
    assert_eq!(server.query(&aliases(1_000)).await.status, 200);
    server.query(&aliases(1_001)).await.is_request_error("TOO_COMPLEX");
}

#[tokio::test]
async fn a_list_of_typenames_is_not_free() {
    let server = Server::start().await;
    assert_eq!(server.query("{ items(size: 10000) { __typename } }").await.status, 200);
    let answer = server.query("{ items(size: 20001) { __typename } }").await;
    answer.is_request_error("TOO_COMPLEX");
    assert_eq!(answer.message(), "Query is too complex.");
}

#[tokio::test]
async fn depth_is_limited_through_fragments() {
    let server = Server::start().await;
    let nested = |levels| format!("{{ item {{ {} number {} }} }}", "same { ".repeat(levels), "} ".repeat(levels));
    assert_eq!(server.query(&nested(14)).await.status, 200);
    server.query(&nested(15)).await.is_request_error("TOO_COMPLEX");

    let chain: String =
        (0..8).map(|n| format!("fragment F{n} on Item {{ same {{ same {{ ...F{} }} }} }} ", n + 1)).collect();
    let chained = server.query(&format!("{{ item {{ ...F0 }} }} {chain} fragment F8 on Item {{ number }}")).await;
    chained.is_request_error("TOO_COMPLEX");
    assert_eq!(chained.message(), "the document has 18 levels of fields, and at most 16 are allowed");
}

#[tokio::test]
async fn directives_are_limited() {
    let server = Server::start().await;
    let skipped = |count| format!("{{ __typename {} }}", "... @skip(if: true) { __typename } ".repeat(count));
    assert_eq!(server.query(&skipped(50)).await.status, 200);
    server.query(&skipped(51)).await.is_request_error("TOO_COMPLEX");
    let one_field = format!("{{ __typename {} }}", "@skip(if: false) ".repeat(51));
    server.query(&one_field).await.is_request_error("TOO_COMPLEX");
}

#[tokio::test]
async fn deep_brackets_do_not_end_the_process() {
    let server = Server::start().await;
    for open in ["{a", "[", "{a(b:[", "query($a:[", "{a(b:{c:"] {
        for prefix in ["", "{a(b:", r#"{a(b:["""x" "#] {
            let answer = server.query(&format!("{prefix}{}", open.repeat(100_000))).await;
            assert!(["TOO_COMPLEX", "INVALID"].contains(&answer.code()), "{answer:?}");
        }
    }
    let deepest = format!("{{ text(text: {}1{}) }}", "[".repeat(62), "]".repeat(62));
    server.query(&deepest).await.is_request_error("INVALID");
}

#[tokio::test]
async fn fragments_that_nothing_spreads_do_not_end_the_process() {
    let server = Server::with(Limits { max_tokens: usize::MAX, ..Limits::default() }).await;
    let chain: String = (0..30_000).map(|n| format!("fragment F{n} on Item {{ ...F{} }} ", n + 1)).collect();
    server.query(&format!("{{ __typename }} {chain}")).await.is_request_error("TOO_COMPLEX");
}

#[tokio::test]
async fn a_fragment_that_spreads_itself_is_refused() {
    let server = Server::start().await;
    for cycle in
        ["fragment A on Item { ...A ...A }", "fragment A on Item { same { ...B } } fragment B on Item { ...A }"]
    {
        for query in [format!("{{ item {{ ...A }} }} {cycle}"), format!("{{ __typename }} {cycle}")] {
            server.query(&query).await.is_request_error("INVALID");
        }
    }
}

#[tokio::test]
async fn data_belongs_in_variables() {
    let server = Server::start().await;
    let many: Vec<String> = (0..20_000).map(|n| format!("tag {n}")).collect();
    let literal = server.query(&format!("{{ named(input: {{ name: \"n\", tags: {many:?} }}) }}")).await;
    literal.is_request_error("TOO_COMPLEX");
    assert_eq!(literal.message(), "the document has more than 10000 tokens: send data as variables");
    let variables = json!({ "input": { "name": "n", "tags": many } });
    let variable = server.query_with("query($input: Naming!) { named(input: $input) }", variables).await;
    assert_eq!(variable.body, json!({ "data": { "named": true } }));
}

#[tokio::test]
async fn the_slowest_document_that_is_admitted_takes_little_time() {
    let server = Server::start().await;
    let arguments: String = (0..2_400).map(|n| format!("a{n}:1 ")).collect();
    let unknown_names = "wrong ".repeat(1_000);
    let long_name = "numbe".repeat(100_000);
    for document in [
        format!("{{ item({arguments}) {{ number }} }}"),
        format!("{{ item {{ {unknown_names} }} }}"),
        format!("{{ item {{ {long_name} }} }}"),
        format!("query({}) {{ __typename }}", (0..3_000).map(|n| format!("$v{n}:Int ")).collect::<String>()),
    ] {
        let started = Instant::now();
        let answer = server.query(&document).await;
        println!("{:?}: {:?} {:.80}", started.elapsed(), answer.status, document);
        assert!(started.elapsed() < Duration::from_secs(5), "{document:.80}");
        assert!(answer.body.to_string().len() < 50_000, "{}", answer.body.to_string().len());
    }
}

/// What GraphiQL sends when it opens, as the package `graphql` writes it.
const INTROSPECTION: &str = include_str!("introspection.graphql");

#[tokio::test]
async fn graphiql_can_read_the_schema() {
    let answer = Server::start().await.query(INTROSPECTION).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body["errors"]);
    assert_eq!(answer.body["data"]["__schema"]["queryType"]["name"], "Query");
}

#[tokio::test]
async fn introspection_cannot_multiply_itself() {
    let server = Server::start().await;
    let fields = |levels| {
        format!("{{ __schema {{ types {{ {} name {} }} }} }}", "fields { type { ".repeat(levels), "} } ".repeat(levels))
    };
    assert_eq!(server.query(&fields(3)).await.status, 200);
    let answer = server.query(&fields(4)).await;
    answer.is_request_error("TOO_COMPLEX");
    assert_eq!(answer.message(), "introspection may nest lists of types 3 times");
}

#[tokio::test]
async fn introspection_switched_off_says_so() {
    let server = Server::with(Limits { introspection: false, ..Limits::default() }).await;
    for query in [
        "{ __schema { queryType { name } } }",
        r#"{ __type(name: "Item") { name } }"#,
        "{ _service { sdl } }",
        "{ ...F } fragment F on Query { a: __schema { queryType { name } } }",
    ] {
        let answer = server.query(query).await;
        answer.is_request_error("FORBIDDEN");
        assert_eq!(answer.message(), "introspection is switched off");
    }
    let misspelt = server.query("{ itm { number } }").await;
    assert!(!misspelt.message().contains("item"), "{misspelt:?}");
    assert_eq!(server.query("{ __typename item { __typename } }").await.status, 200);

    let on = Server::start().await.query("{ _service { sdl } }").await;
    assert!(on.body["data"]["_service"]["sdl"].as_str().unwrap().contains("type Query"), "{on:?}");
}
