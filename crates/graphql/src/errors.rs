//! Gives each error of an execution its code, and hides faults.

use async_graphql::{ErrorExtensionValues, ServerError, Value};

use trace::Trace;

use crate::{Code, Refusal};

/// A document can be wrong in thousands of places; nobody reads more than these.
const MAX_ERRORS: usize = 50;

/// The library quotes the document in its messages, and names in it may be long.
const MAX_MESSAGE_CHARS: usize = 500;

/// Makes `errors` fit for a client. Each has `extensions.code` afterwards; what was a fault is logged here, once.
pub(crate) fn settle(errors: &mut Vec<ServerError>, trace: Trace) {
    errors.truncate(MAX_ERRORS);
    for error in errors {
        if has_code(error) {
            continue;
        }
        if let Some(refusal) = error.source::<Refusal>() {
            error.extensions = Some(refusal_extensions(refusal));
        } else if let Some(code) = library_code(error) {
            extend(error, "code", code.as_str().into());
            if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE_CHARS) {
                error.message.replace_range(end.., "…");
            }
        } else {
            log_fault(error, trace);
            *error = ServerError {
                locations: std::mem::take(&mut error.locations),
                path: std::mem::take(&mut error.path),
                ..internal("internal error", trace)
            };
        }
    }
}

/// The error that stands for a whole request that a refusal ended before it was executed.
pub(crate) fn refused(refusal: &Refusal) -> ServerError {
    let mut error = ServerError::new(refusal.to_string(), None);
    error.extensions = Some(refusal_extensions(refusal));
    error
}

/// The error that stands for a document that could not be parsed.
pub(crate) fn unparsable(mut error: ServerError) -> ServerError {
    // The parser draws the place below the line, which may be the whole document. `locations` says it, too.
    if let Some((_, reason)) = error.message.rsplit_once("\n  = ") {
        error.message = format!("syntax error: {reason}");
    }
    error
}

/// An error whose cause the client does not see.
pub(crate) fn internal(message: impl Into<String>, trace: Trace) -> ServerError {
    let mut error = ServerError::new(message, None);
    extend(&mut error, "code", Code::Internal.as_str().into());
    extend(&mut error, "traceId", trace.to_string().into());
    error
}

fn has_code(error: &ServerError) -> bool {
    error.extensions.as_ref().is_some_and(|extensions| extensions.get("code").is_some())
}

fn extend(error: &mut ServerError, name: &str, value: Value) {
    error.extensions.get_or_insert_default().set(name, value);
}

fn refusal_extensions(refusal: &Refusal) -> ErrorExtensionValues {
    let mut extensions = ErrorExtensionValues::default();
    for (name, value) in refusal.details() {
        extensions.set(name, value.clone());
    }
    extensions.set("code", refusal.code().as_str());
    extensions
}

/// The code of an error that async-graphql raised by itself. It has none, so its message tells.
///
/// Before execution an error has no path, and all of them are the client's. During execution only an argument's value
/// can be: what is not known by its message is a fault, so a message reworded by the library hides too much, and not
/// too little.
fn library_code(error: &ServerError) -> Option<Code> {
    if error.source.is_some() {
        return None;
    }
    if error.path.is_empty() {
        let too_complex = error.message == "Query is too complex.";
        return Some(if too_complex { Code::TooComplex } else { Code::Invalid });
    }
    let about_a_value = ["Failed to parse \"", "Expected input type \"", "Variable "];
    about_a_value.iter().any(|start| error.message.starts_with(start)).then_some(Code::Invalid)
}

fn log_fault(error: &ServerError, trace: Trace) {
    let path = path(error);
    match error.source::<anyhow::Error>() {
        Some(fault) => {
            tracing::error!(trace.id = %trace, graphql.path = path, error = format!("{fault:#}"), "a field failed");
        }
        None => tracing::error!(trace.id = %trace, graphql.path = path, error = error.message, "a field failed"),
    }
}

fn path(error: &ServerError) -> String {
    use async_graphql::PathSegment::{Field, Index};
    let segments = error.path.iter().map(|segment| match segment {
        Field(name) => name.clone(),
        Index(index) => index.to_string(),
    });
    segments.collect::<Vec<_>>().join(".")
}
