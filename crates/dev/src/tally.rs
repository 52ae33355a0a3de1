//! Counts what passed and what failed, over cargo's test binaries and the checks beside them.

use std::fmt;

/// Displayed as `N passed, N failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// One check that is not a test of cargo's.
    pub fn check(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Takes in a line of `cargo test`, if it is a summary or names a failed test.
    pub fn read_line(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += count(summary, "passed");
            self.failed += count(summary, "failed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }

    /// Whether nothing failed.
    pub fn is_success(&self) -> bool {
        self.failed == 0
    }

    /// How many failed so far.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Names of what failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The number before ` what` in `ok. 3 passed; 1 failed; 0 ignored; …`.
fn count(summary: &str, what: &str) -> u64 {
    let mut words = summary.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        if words.peek() == Some(&what) {
            return word.parse().unwrap_or_default();
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_several_binaries_and_checks_add_up() {
        let mut tally = Tally::default();
        tally.check("format", true);
        for line in [
            "test stock::tests::holds ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.52s",
            "test redelivery ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s",
        ] {
            tally.read_line(line);
        }
        assert_eq!(tally.to_string(), "16 passed, 1 failed");
        assert_eq!(tally.failures(), ["redelivery"]);
        assert!(!tally.is_success());
    }
}
