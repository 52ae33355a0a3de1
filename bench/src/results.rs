//! The file that says what was measured, on what, and with which settings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Local};
use dev::workspace;

use crate::Effort;
use crate::chart::Chart;
use crate::report::Section;

/// What a run of the benchmark found out.
#[derive(Debug, Default)]
pub struct Results {
    /// What was measured, unless it was everything.
    only: Option<String>,
    sections: Vec<(Section, u32)>,
    charts: Vec<Chart>,
    servers: String,
}

impl Results {
    /// Nothing yet, of everything or `only` of this.
    pub fn of(only: Option<String>) -> Self {
        Self { only, ..Self::default() }
    }

    /// Adds a scenario, and how many of its measurements were void.
    pub fn add(&mut self, section: Section, voids: u32) {
        println!("{}", told(&section, voids));
        self.sections.push((section, voids));
    }

    /// Adds what can be seen of it.
    pub fn show(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// Notes which servers it was measured on: all are the same.
    pub fn on(&mut self, servers: String) {
        self.servers = servers;
    }

    /// Writes `bench/results/DATE.md`, or `DATE-SCENARIO.md` if not everything is measured, and the charts: what there is
    /// up to now, so that an hour's work does not hang on its last minute.
    pub fn write(&self, effort: Effort) -> Result<()> {
        let folder = workspace::root()?.join("bench");
        let date = DateTime::<Local>::from(std::time::SystemTime::now()).format("%Y-%m-%d").to_string();
        let name = self.only.as_ref().map_or_else(|| date.clone(), |only| format!("{date}-{only}"));
        write(&folder.join("results").join(format!("{name}.md")), &self.text(&date, effort)?)?;
        for chart in &self.charts {
            write(&folder.join("charts").join(chart.file_name()), &chart.draw()?)?;
        }
        Ok(())
    }

    fn text(&self, date: &str, effort: Effort) -> Result<String> {
        let about = [crate::machine::description()?, self.servers.clone(), sources()?, settings(effort)].concat();
        let sections = self.sections.iter().map(|(section, voids)| told(section, *voids));
        Ok(format!("# {date}\n\n{about}\n{}", sections.collect::<Vec<_>>().join("\n")))
    }
}

fn told(section: &Section, voids: u32) -> String {
    match voids {
        0 => format!("{section}"),
        1 => format!("{section}\n1 measurement was void, because something else used the machine, and was repeated.\n"),
        _ => format!(
            "{section}\n{voids} measurements were void, because something else used the machine, and were repeated.\n"
        ),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn settings(effort: Effort) -> String {
    let Effort { rounds, length, .. } = effort;
    let (length, warm_up) = (length.as_secs_f64(), effort.warm_up().as_secs_f64());
    format!("- measured: {rounds} rounds of {length} s each after {warm_up} s of warming up, the sides in turn\n")
}

/// The compiler, and what it compiled.
fn sources() -> Result<String> {
    let rustc = output("rustc", &["--version"])?;
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = output("git", &["status", "--porcelain", "--", ".", ":!bench/results", ":!bench/charts"])?;
    let changes = if changes.is_empty() { "" } else { ", with local changes" };
    Ok(format!("- sources: commit {commit}{changes}; {rustc}\n"))
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).current_dir(workspace::root()?).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_measurements_are_told() {
        let section = Section { title: "hot", about: "One product.".into(), rows: Vec::new() };
        assert!(!told(&section, 0).contains("void"));
        assert!(
            told(&section, 1)
                .ends_with("1 measurement was void, because something else used the machine, and was repeated.\n")
        );
        assert!(told(&section, 3).contains("3 measurements were void"));
    }

    #[test]
    fn a_file_of_results_says_on_what_and_how_it_was_measured() {
        let mut results = Results::default();
        results.on("- PostgreSQL: fsync on\n".into());
        results.add(Section { title: "hot", about: "One product.".into(), rows: Vec::new() }, 2);
        let effort = Effort { rounds: 3, length: std::time::Duration::from_secs(5), busy_machine: false };
        let text = results.text("2026-11-20", effort).unwrap();
        assert!(text.starts_with("# 2026-11-20\n\n- machine: "), "{text}");
        for part in ["fsync on", "rustc 1.", "3 rounds of 5 s each after 1 s of warming up", "## hot", "2 measurements"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
