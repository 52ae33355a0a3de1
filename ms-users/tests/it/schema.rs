//! The schema is committed, and explains itself.

use ms_users::graphql::schema;

use crate::committed::{DESCRIPTIONS, assert_committed, assert_explained};

#[test]
fn the_committed_schema_is_what_is_served() {
    assert_committed(env!("CARGO_MANIFEST_DIR"), &schema().finish().sdl(), "the_committed_schema");
}

#[tokio::test]
async fn every_type_field_argument_and_value_is_explained() {
    assert_explained(&schema().finish().execute(DESCRIPTIONS).await, 40);
}
