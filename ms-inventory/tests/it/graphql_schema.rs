//! The schema is written down, and explains itself.

use std::path::Path;

use ms_inventory::graphql;

#[test]
fn the_written_schema_is_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let schema = graphql::schema().finish().sdl();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == schema,
        "ms-inventory/schema.graphql is not the schema: run `UPDATE_SCHEMA=1 cargo dev test the_written_schema`, \
         and look at the difference"
    );
}

#[tokio::test]
async fn every_type_field_argument_and_value_is_explained() {
    let introspection = "{ __schema { types { kind name description
        fields { name description args { name description } }
        inputFields { name description } enumValues { name description } } } }";
    let answer = graphql::schema().finish().execute(introspection).await;
    let answer = serde_json::to_value(&answer.data).unwrap();
    let mut unexplained = Vec::new();
    let mut explained = 0;
    for ty in answer["__schema"]["types"].as_array().unwrap() {
        let name = ty["name"].as_str().unwrap();
        // Scalars and what a connection is are the library's to explain.
        if name.starts_with("__") || ty["kind"] == "SCALAR" {
            continue;
        }
        let mut check = |path: String, member: &serde_json::Value| {
            explained += 1;
            if member["description"].as_str().is_none_or(str::is_empty) {
                unexplained.push(path);
            }
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
    assert!(explained > 80, "{explained}");
}
