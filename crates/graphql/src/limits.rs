use std::time::Duration;

use async_graphql::SchemaBuilder;

/// What a change costs, among the complexity of a request and among what a caller may ask for: a request holds a few dozen.
pub const CHANGE_COST: usize = 500;

/// What one request may cost. Everything here is refused with a code and a message that names the limit.
///
/// The defaults leave room for GraphiQL's introspection query (about 240 fields, 15 levels) and for a mutation that
/// imports 10 000 rows from a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a POST body. Default 4 MiB: 10 000 products of 400 bytes. Larger bodies are refused with 413.
    pub max_body_bytes: usize,
    /// Time from the request's head to the answer's, the client's sending of the body included. Default 30 s.
    /// After that, what is executing is dropped, and the answer is 504.
    pub request_timeout: Duration,
    /// Lexical tokens of the document. Default 10 000. Data belongs in variables, which this does not count.
    pub max_tokens: usize,
    /// Levels of fields below one another. Default 16: introspection needs 15.
    pub max_depth: usize,
    /// Fields asked for with all fragments spelled out, `__typename` and aliases included. Default 1 000.
    pub max_fields: usize,
    /// Directives written in the document. Default 50.
    pub max_directives: usize,
    /// The schema's own measure: 1 a field, and what each field's `complexity` says. Default 20 000: about 1 000
    /// objects of 20 fields.
    pub max_complexity: usize,
    /// Bytes of text of the documents that are remembered, so that the next request with the same text is not parsed and
    /// validated again. Default 128 KiB: some 300 documents, which parsed take about 4 MiB, and 12 at the worst.
    pub max_remembered_bytes: usize,
    /// What one caller may ask for in a second, and ten times of it at once: a field costs 1, a page as many times what is
    /// in it as it has entries, a change 500. Default 0: as much as they like.
    pub cost_per_second: u32,
    /// Whether the schema may be read over HTTP (`__schema`, `__type`, and federation's `_service`). Default `true`.
    pub introspection: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            max_tokens: 10_000,
            max_depth: 16,
            max_fields: 1_000,
            max_directives: 50,
            max_complexity: 20_000,
            max_remembered_bytes: 128 * 1024,
            cost_per_second: 0,
            introspection: true,
        }
    }
}

impl Limits {
    /// Sets those that the schema itself holds.
    pub(crate) fn apply<Q, M, S>(&self, schema: SchemaBuilder<Q, M, S>) -> SchemaBuilder<Q, M, S> {
        let schema = schema.limit_complexity(self.max_complexity);
        // A suggestion ("did you mean …") tells names, too.
        if self.introspection { schema } else { schema.disable_introspection().disable_suggestions() }
    }
}
