//! Tests that need several services.
