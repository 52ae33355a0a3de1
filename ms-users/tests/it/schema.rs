//! The committed schema.

use std::path::Path;

use serde_json::Value;

#[test]
fn the_committed_schema_is_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let served = ms_users::graphql::schema().finish().sdl();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        served == committed,
        "ms-users/schema.graphql is not what is served: run `UPDATE_SCHEMA=1 cargo dev test the_committed_schema`, \
         and look at the difference"
    );
}

#[tokio::test]
async fn every_type_field_argument_and_value_is_explained() {
    let introspection = "{ __schema { types { kind name description
        fields { name description args { name description } }
        inputFields { name description } enumValues { name description } } } }";
    let answer = ms_users::graphql::schema().finish().execute(introspection).await;
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
    assert!(explained > 40, "{explained}");
}
