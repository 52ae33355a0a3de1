//! What is known against the npm packages in our lock files, as the registry tells it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::{Farewell, Process};
use crate::{playground, workspace};

/// The folders whose packages reach a user's browser or a developer's machine.
const FOLDERS: [&str; 2] = ["playground", "e2e/browser"];

/// What `npm audit --json` prints: a report, or why there is none.
#[derive(Deserialize)]
struct Audit {
    vulnerabilities: Option<BTreeMap<String, Vulnerability>>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Vulnerability {
    severity: String,
    range: String,
}

/// Checks the lock files. Returns what whoever relies on the result has to know: that they could not be checked.
pub fn check(dir: &Path) -> Result<Option<String>> {
    for folder in FOLDERS {
        let arguments = ["audit", "--json", "--package-lock-only", "--fetch-retries", "0", "--fetch-timeout", "30000"];
        let command = playground::npm(&workspace::root()?.join(folder), &arguments);
        let process = Process::spawn_anew(dir, "npm-audit", command, Farewell::COMMAND)?;
        let log = process.log_path().to_path_buf();
        process.follow(|_| ())?;
        match found(&fs::read_to_string(log)?)? {
            Ok(found) => {
                for vulnerability in &found {
                    println!("{folder}: {vulnerability}");
                }
                ensure!(found.is_empty(), "there are advisories against npm packages");
            }
            Err(why) => return Ok(Some(format!("npm packages were NOT CHECKED for advisories: {why}"))),
        }
    }
    Ok(None)
}

/// The vulnerable packages in the output of an audit, or why there was none.
fn found(output: &str) -> Result<Result<Vec<String>, String>> {
    // Warnings come before it.
    let Some(json) = output.find("\n{").map(|at| &output[at..]).or(output.starts_with('{').then_some(output)) else {
        return Ok(Err(output.lines().next_back().unwrap_or("npm audit prints nothing").to_owned()));
    };
    let mut values = serde_json::Deserializer::from_str(json).into_iter();
    let audit: Audit = values.next().context("npm audit prints nothing")?.context("npm audit prints no report")?;
    let Some(vulnerabilities) = audit.vulnerabilities else {
        return Ok(Err(audit.message.unwrap_or_else(|| "npm audit gives no report".to_owned())));
    };
    let told = |(name, found): (String, Vulnerability)| format!("{name} {}: {}", found.range, found.severity);
    Ok(Ok(vulnerabilities.into_iter().map(told).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vulnerable_package_is_told_and_so_is_an_audit_that_was_refused() {
        let vulnerable = r#"{"auditReportVersion":2,"vulnerabilities":{"left-pad":{"name":"left-pad","severity":"high",
            "range":"<1.3.0","via":[]}},"metadata":{}}"#;
        assert_eq!(found(vulnerable).unwrap(), Ok(vec!["left-pad <1.3.0: high".to_owned()]));
        let clean = "npm warn old lockfile\n{\"auditReportVersion\":2,\"vulnerabilities\":{}}\n";
        assert_eq!(found(clean).unwrap(), Ok(vec![]));
        let refused = "npm warn audit 405\n{\n  \"message\": \"405 Method Not Allowed\",\n  \"method\": \"POST\"\n}\n";
        assert_eq!(found(refused).unwrap(), Err("405 Method Not Allowed".to_owned()));
        assert_eq!(found("npm error network\n").unwrap(), Err("npm error network".to_owned()));
    }
}
