//! What holds of the schema of every service. Each has this file among its tests.

use std::path::Path;

use async_graphql::Response;
use serde_json::Value;

/// Compares a schema with the one that is committed in a package, or writes it there where `UPDATE_SCHEMA` is set.
pub(crate) fn assert_committed(package: &str, served: &str, test: &str) {
    let path = Path::new(package).join("schema.graphql");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        served == committed,
        "{} is not what is served: run `UPDATE_SCHEMA=1 cargo dev test {test}`, and look at the difference",
        path.display()
    );
}

/// Asks for every type, field, argument and value with its description.
pub(crate) const DESCRIPTIONS: &str = "{ __schema { types { kind name description
    fields { name description args { name description } }
    inputFields { name description } enumValues { name description } } } }";

/// Asserts that each in the answer to [`DESCRIPTIONS`] has one, and that there are more than so many.
pub(crate) fn assert_explained(answer: &Response, more_than: usize) {
    let answer = serde_json::to_value(&answer.data).unwrap();
    let (mut explained, mut unexplained) = (0, Vec::new());
    for ty in answer["__schema"]["types"].as_array().unwrap() {
        let name = ty["name"].as_str().unwrap();
        // Scalars and connections are the library's to explain.
        if name.starts_with("__") || ty["kind"] == "SCALAR" {
            continue;
        }
        let mut check = |path: String, member: &Value| match member["description"].as_str() {
            None | Some("") => unexplained.push(path),
            Some(_) => explained += 1,
        };
        if !name.ends_with("Connection") {
            check(name.to_owned(), ty);
        }
        for members in ["fields", "inputFields", "enumValues"] {
            for member in ty[members].as_array().into_iter().flatten() {
                let path = format!("{name}.{}", member["name"].as_str().unwrap());
                for argument in member["args"].as_array().into_iter().flatten() {
                    check(format!("{path}({})", argument["name"].as_str().unwrap()), argument);
                }
                check(path, member);
            }
        }
    }
    assert_eq!(unexplained, [""; 0]);
    assert!(explained > more_than, "{explained}");
}
