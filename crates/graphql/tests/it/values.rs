//! Ids, text and pages.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn an_id_is_a_string_or_an_integer_of_64_bits() {
    let server = Server::start().await;
    for (id, expected) in
        [("1", "1"), (r#""1""#, "1"), ("9223372036854775807", "9223372036854775807"), (r#""-5""#, "-5")]
    {
        let literal = server.query(&format!("{{ id(id: {id}) }}")).await;
        assert_eq!(literal.body, json!({ "data": { "id": expected } }), "{id}");
        let variables = format!(r#"{{"query": "query($id: ID!) {{ id(id: $id) }}", "variables": {{"id": {id}}}}}"#);
        assert_eq!(server.send(variables).await.body, json!({ "data": { "id": expected } }), "{id}");
    }
    for id in [r#""""#, r#""abc""#, r#""1.0""#, r#"" 1""#, r#""9223372036854775808""#, "1.5", "true", "null", "[]"] {
        let literal = server.query(&format!("{{ id(id: {id}) }}")).await;
        assert_eq!(literal.code(), "INVALID", "{id} {literal:?}");
        let variables = format!(r#"{{"query": "query($id: ID!) {{ id(id: $id) }}", "variables": {{"id": {id}}}}}"#);
        assert_eq!(server.send(variables).await.code(), "INVALID", "{id}");
    }
    let schema =
        server.query(r#"{ __type(name: "Query") { fields { name args { type { ofType { name } } } } } }"#).await;
    let fields = schema.body["data"]["__type"]["fields"].as_array().unwrap();
    let id = fields.iter().find(|field| field["name"] == "id").unwrap();
    assert_eq!(id["args"][0]["type"]["ofType"]["name"], "ID");
}

#[tokio::test]
async fn nul_is_refused_wherever_it_stands() {
    let server = Server::start().await;
    let text = "query($text: String!) { text(text: $text) }";
    let named = "query($input: Naming!) { named(input: $input) }";
    for (query, variables) in [
        (text, json!({ "text": "a\0" })),
        (named, json!({ "input": { "name": "\0", "tags": [] } })),
        (named, json!({ "input": { "name": "n", "tags": ["a", "b\0"] } })),
        (r#"{ text(text: "\u0000") }"#, json!({})),
        ("{ text(text: \"\0\") }", json!({})),
        ("{ text(text: \"\"\"\0\"\"\") }", json!({})),
        (r#"query($text: String! = "\u0000") { text(text: $text) }"#, json!({})),
    ] {
        let answer = server.query_with(query, variables).await;
        answer.is_request_error("INVALID");
        assert_eq!(answer.message(), "text must not contain NUL", "{query}");
    }
    let spelled_out = server.query_with(text, json!({ "text": r"\u0000" })).await;
    assert_eq!(spelled_out.body, json!({ "data": { "text": 6 } }));
}

#[tokio::test]
async fn text_is_capped_by_its_characters() {
    let server = Server::start().await;
    assert_eq!(server.query(r#"{ text(text: "žluťoučký!") }"#).await.body, json!({ "data": { "text": 10 } }));
    let long = server.query(r#"{ text(text: "12345678901") }"#).await;
    assert_eq!((long.code(), long.message()), ("INVALID", "text is longer than 10 characters"));
    assert_eq!(long.body["errors"][0]["extensions"], json!({ "code": "INVALID", "field": "text", "maxChars": 10 }));
}

#[tokio::test]
async fn paging_forward_and_backward_meets_every_row_once() {
    let server = Server::start().await;
    for (size, cursor, more, end) in
        [("first", "after", "hasNextPage", "endCursor"), ("last", "before", "hasPreviousPage", "startCursor")]
    {
        let (mut seen, mut from) = (Vec::new(), json!(null));
        loop {
            let query = format!(
                "query($from: String) {{ numbers({size}: 7, {cursor}: $from) {{ edges {{ cursor node }} nodes \
                 pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"
            );
            let answer = server.query_with(&query, json!({ "from": from })).await;
            let page = &answer.body["data"]["numbers"];
            let nodes: Vec<i64> = page["nodes"].as_array().unwrap().iter().map(|node| node.as_i64().unwrap()).collect();
            assert!(nodes.is_sorted() && nodes.len() <= 7, "{answer:?}");
            let other = if more == "hasNextPage" { "hasPreviousPage" } else { "hasNextPage" };
            assert_eq!(page["pageInfo"][other], json!(!from.is_null()));
            seen.extend(nodes);
            from = page["pageInfo"][end].clone();
            if page["pageInfo"][more] == json!(false) {
                break;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=50).collect::<Vec<_>>(), "{size}");
    }
}

#[tokio::test]
async fn a_bad_page_is_refused() {
    let server = Server::start().await;
    for arguments in ["first: -1", "first: 101", "last: 101", "first: 1, last: 1", r#"after: "x""#, r#"before: """#] {
        let answer = server.query(&format!("{{ numbers({arguments}) {{ nodes }} }}")).await;
        assert_eq!(answer.code(), "INVALID", "{arguments} {answer:?}");
    }
}
