//! An object that is resolved in place answers as any other.

use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn an_object_in_place_answers_as_any_other() {
    let server = Server::start().await;
    for fields in [
        "number",
        "number __typename n: number",
        "number number",
        "must { number } must { n: number }",
        "may { must { number } } mayList { number }",
        "...on Node { number } ...F",
        "...F number",
        "number @skip(if: true) n: number @include(if: true)",
        "number mayBreak",
        "mayBreak number number",
        "mayBreak",
        "number mustBreak",
        "may { mustBreak number }",
    ] {
        let ask = async |field: &str| {
            let fragment = if fields.contains("...F") { "fragment F on Node { f: number }" } else { "" };
            let answer = server.query(&format!("{{ object: {field} {{ {fields} }} }} {fragment}")).await;
            let mut body = answer.body;
            // The two are found at different columns of the document.
            for error in body.get_mut("errors").and_then(Value::as_array_mut).into_iter().flatten() {
                error["locations"] = json!(null);
            }
            (answer.status, body)
        };
        assert_eq!(ask("ready").await, ask("must").await, "{fields}");
    }
}
