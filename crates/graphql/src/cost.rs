//! Counts what a parsed document asks for before the schema validates it.
//!
//! Validation walks every spread again, so fragments that spread the next one twice double its time with each level:
//! 24 levels, 1 KB, took 36 s in a debug build, with the library's limits of depth and complexity set. Here each
//! fragment is counted once and its sum is kept. Validation also recurses along fragments that nothing executes, and
//! 10 000 in a chain overflowed its stack, which ends the process; here the chain is refused at 32.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned,
    parser::types::{Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet},
};

use crate::{Limits, Refusal};

/// How deep fields, fragments and inline fragments may nest together. The schema's execution recurses on it.
const MAX_RECURSION: usize = 32;

/// How often lists of types may nest inside introspection (`fields { type { fields { … } } }`). Each level multiplies
/// the answer by the schema's width. The reference implementation has the same rule and number; GraphiQL's query
/// needs 2.
const MAX_INTROSPECTION_LISTS: usize = 3;

/// Refuses a document that asks for more than `limits` allow, or for the schema where it is not to be read.
pub(crate) fn check(document: &ExecutableDocument, limits: &Limits) -> Result<(), Refusal> {
    let mut counter = Counter { document, fragments: HashMap::new(), directives: 0 };
    let mut total = Cost::default();
    for (_, operation) in document.operations.iter() {
        counter.count_directives(&operation.node.directives);
        for variable in &operation.node.variable_definitions {
            counter.count_directives(&variable.node.directives);
        }
        total.add(counter.selection_set(&operation.node.selection_set, 0)?);
    }
    // What no operation spreads is not executed, but it is validated, by recursion.
    for name in document.fragments.keys() {
        counter.fragment(name.as_str(), 0)?;
    }
    refuse_excess(&total, counter.directives, limits)
}

/// The operation that is to be executed: the named one, or the only one. `None` where the request does not say.
pub(crate) fn operation<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Option<&'a OperationDefinition> {
    let is_wanted = |candidate: Option<&Name>| name.is_none_or(|name| candidate.is_some_and(|it| it == name));
    let mut candidates = document.operations.iter().filter(|(candidate, _)| is_wanted(*candidate));
    let (_, operation) = candidates.next()?;
    candidates.next().is_none().then_some(&operation.node)
}

fn refuse_excess(cost: &Cost, directives: usize, limits: &Limits) -> Result<(), Refusal> {
    let Limits { max_fields, max_depth, max_directives, .. } = *limits;
    if cost.introspects && !limits.introspection {
        return Err(Refusal::forbidden("introspection is switched off"));
    }
    for (name, count, max) in [
        ("fields", cost.fields, max_fields),
        ("levels of fields", cost.depth, max_depth),
        ("directives", directives, max_directives),
    ] {
        if count > max {
            let message = format!("the document has {count} {name}, and at most {max} are allowed");
            return Err(Refusal::too_complex(message).with("max", max as u64));
        }
    }
    Ok(())
}

/// What a selection set asks for, with its fragments spelled out.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Fields of any name, by saturating addition.
    fields: usize,
    /// Levels of fields.
    depth: usize,
    /// Levels of anything.
    recursion: usize,
    /// Levels of the fields that list types in introspection.
    introspection_lists: usize,
    introspects: bool,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.fields = self.fields.saturating_add(other.fields);
        self.depth = self.depth.max(other.depth);
        self.recursion = self.recursion.max(other.recursion);
        self.introspection_lists = self.introspection_lists.max(other.introspection_lists);
        self.introspects |= other.introspects;
    }
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    /// `None` while a fragment is being counted: one that is met then spreads itself.
    fragments: HashMap<&'a str, Option<Cost>>,
    directives: usize,
}

impl<'a> Counter<'a> {
    fn selection_set(&mut self, set: &'a Positioned<SelectionSet>, level: usize) -> Result<Cost, Refusal> {
        if level > MAX_RECURSION {
            return Err(too_deep());
        }
        let mut cost = Cost::default();
        for selection in &set.node.items {
            self.count_directives(selection.node.directives());
            cost.add(match &selection.node {
                Selection::Field(field) => {
                    let inner = self.selection_set(&field.node.selection_set, level + 1)?;
                    field_cost(field.node.name.node.as_str(), inner)?
                }
                Selection::InlineFragment(inline) => self.selection_set(&inline.node.selection_set, level + 1)?,
                Selection::FragmentSpread(spread) => self.fragment(spread.node.fragment_name.node.as_str(), level)?,
            });
        }
        cost.recursion += 1;
        Ok(cost)
    }

    fn fragment(&mut self, name: &str, level: usize) -> Result<Cost, Refusal> {
        // A spread of a fragment that is not there is validation's to report.
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Ok(Cost::default());
        };
        let cost = match self.fragments.get(name.as_str()) {
            Some(Some(cost)) => *cost,
            Some(None) => return Err(Refusal::invalid(format!("the fragment {name} spreads itself"))),
            None => {
                self.fragments.insert(name.as_str(), None);
                self.count_directives(&fragment.node.directives);
                let cost = self.selection_set(&fragment.node.selection_set, level + 1)?;
                self.fragments.insert(name.as_str(), Some(cost));
                cost
            }
        };
        if level + cost.recursion > MAX_RECURSION {
            return Err(too_deep());
        }
        Ok(cost)
    }

    fn count_directives(&mut self, directives: &[Positioned<Directive>]) {
        self.directives += directives.len();
    }
}

fn field_cost(name: &str, inner: Cost) -> Result<Cost, Refusal> {
    let lists_types = matches!(name, "fields" | "interfaces" | "possibleTypes" | "inputFields");
    let introspects = matches!(name, "__schema" | "__type" | "_service");
    if introspects && inner.introspection_lists > MAX_INTROSPECTION_LISTS {
        return Err(Refusal::too_complex(format!(
            "introspection may nest lists of types {MAX_INTROSPECTION_LISTS} times"
        )));
    }
    Ok(Cost {
        fields: inner.fields.saturating_add(1),
        depth: inner.depth + 1,
        introspection_lists: inner.introspection_lists + usize::from(lists_types),
        introspects: inner.introspects | introspects,
        ..inner
    })
}

fn too_deep() -> Refusal {
    Refusal::too_complex(format!("fields and fragments nest deeper than {MAX_RECURSION} levels"))
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;
    use crate::Code;

    fn code(query: &str, limits: &Limits) -> Option<Code> {
        check(&parse_query(query).unwrap(), limits).err().map(|refusal| refusal.code())
    }

    /// With no limit to the levels of fields, so that only the recursion is limited.
    fn deep(query: &str) -> Option<Code> {
        code(query, &Limits { max_depth: usize::MAX, ..Limits::default() })
    }

    /// A field, an inline fragment, and a spread with the field in it are a level each.
    #[test]
    fn fields_and_fragments_nest_up_to_the_bound() {
        let fragment = "fragment f on T { a }";
        for (beside, open, inner, most) in [
            ("", "a { ", "a", MAX_RECURSION - 1),
            ("", "... { ", "a", MAX_RECURSION - 1),
            ("", "a { ", "...f", MAX_RECURSION - 2),
            // Here the fragment was counted before.
            ("...f", "a { ", "...f", MAX_RECURSION - 2),
        ] {
            for (levels, code) in [(most, None), (most + 1, Some(Code::TooComplex)), (most + 2, Some(Code::TooComplex))]
            {
                let nested = format!("{}{inner}{}", open.repeat(levels), " }".repeat(levels));
                let query = format!("{{ {beside} {nested} }} {fragment}");
                assert_eq!(deep(&query), code, "{levels} levels: {query}");
            }
        }
    }

    #[test]
    fn introspection_inside_of_introspection_is_introspection() {
        let off = Limits { introspection: false, ..Limits::default() };
        assert_eq!(code("{ __schema { __schema } }", &off), Some(Code::Forbidden));
    }

    #[test]
    fn an_operation_is_found_by_its_name_or_because_it_is_the_only_one() {
        let ty = |query: &str, name| operation(&parse_query(query).unwrap(), name).map(|it| it.ty.to_string());
        let two = "query a { x } mutation b { y }";
        assert_eq!(ty(two, Some("a")).as_deref(), Some("query"));
        assert_eq!(ty(two, Some("b")).as_deref(), Some("mutation"));
        assert_eq!(ty(two, Some("c")), None);
        assert_eq!(ty(two, None), None);
        assert_eq!(ty("mutation { y }", None).as_deref(), Some("mutation"));
    }
}
