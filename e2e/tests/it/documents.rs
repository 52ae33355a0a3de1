//! What is written about the system is true of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of this path from the repository's root.
pub(crate) fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below a folder with this extension, but nothing that is generated.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let generated = ["target", "node_modules", "dist", "test-results"].iter().any(|folder| name == *folder);
        if path.is_dir() && !generated && !name.to_string_lossy().starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn sources() -> String {
    files(&root(), "rs").iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The fenced blocks of a language in a document.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let fence = format!("```{language}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().trim_end()).collect()
}

/// What stands between this opening and this ending, on one line.
fn between<'d>(document: &'d str, opening: &str, ending: char) -> Vec<&'d str> {
    let after = document.split(opening).skip(1);
    after.filter_map(|rest| rest.lines().next()?.split_once(ending)).map(|(text, _)| text).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = files(&root(), "md");
    assert!(documents.len() > 8, "{documents:?}");
    for document in documents {
        for link in between(&fs::read_to_string(&document).unwrap(), "](", ')') {
            let path = link.split('#').next().unwrap();
            let there = path.is_empty() || path.contains("://") || document.parent().unwrap().join(path).exists();
            assert!(there, "{} links to {link}", document.display());
        }
    }
}

#[test]
fn every_test_that_is_named_as_a_proof_exists() {
    let sources = sources();
    let decisions = files(&root().join("docs/decisions"), "md");
    let decisions = decisions.iter().map(|file| fs::read_to_string(file).unwrap());
    let documents: Vec<String> = decisions.chain([read("ARCHITECTURE.md"), read("docs/security.md")]).collect();
    let quoted = documents.iter().flat_map(|document| document.split('`'));
    let is_name = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let tests: BTreeSet<&str> =
        quoted.filter(is_name).filter(|name| name.matches('_').count() > 2 || *name == "no_oversell").collect();
    assert!(tests.len() > 15, "{tests:?}");
    for test in tests {
        assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
    }
}

#[test]
fn the_examples_of_the_event_contract_are_its_golden_files() {
    let golden = files(&root().join("crates/events/golden"), "json");
    let golden: BTreeSet<String> = golden.iter().map(|file| fs::read_to_string(file).unwrap().trim().into()).collect();
    let contract = read("docs/events.md");
    assert_eq!(blocks(&contract, "json").into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), golden);
    let for_programs = read("docs/asyncapi.yaml");
    let payloads = for_programs.lines().filter_map(|line| line.trim().strip_prefix("- payload: "));
    assert_eq!(payloads.map(str::to_owned).collect::<BTreeSet<_>>(), golden);
    let readme = read("README.md");
    let quoted: Vec<&str> = readme.lines().filter(|line| line.starts_with("{\"event\"")).collect();
    assert_eq!(quoted.len(), 3);
    for event in quoted {
        assert!(golden.contains(event), "{event}");
    }
}

#[test]
fn the_first_session_is_what_the_playground_opens_with() {
    let operations = root().join("playground/operations");
    let tabs = [files(&operations, "graphql"), files(&operations, "json")].concat();
    let tabs: Vec<String> = tabs.iter().map(|file| without_comments(&fs::read_to_string(file).unwrap())).collect();
    let readme = read("README.md");
    let variables = blocks(&readme, "json").into_iter().filter(|block| !block.starts_with("{\"event\""));
    let session: Vec<&str> = blocks(&readme, "graphql").into_iter().chain(variables).collect();
    assert_eq!(session.len(), 3, "{session:?}");
    for block in session {
        assert!(tabs.contains(&without_comments(block)), "no tab holds {block}");
    }
}

fn without_comments(operation: &str) -> String {
    operation.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_metrics_are_those_that_are_counted() {
    let sources = sources();
    let kinds = ["counter", "gauge", "histogram"];
    let counted: BTreeSet<&str> =
        kinds.iter().flat_map(|kind| between(&sources, &format!("metrics::{kind}!(\""), '"')).collect();
    let operating = read("docs/operating.md");
    let section = operating.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let told: BTreeSet<&str> = between(section, "| `", '`').into_iter().filter(|name| name.contains('_')).collect();
    assert_eq!(told, counted);
}
