//! What was measured, as one table with the ratios first.

use std::fmt;

/// The median of several runs, and how far they lie apart.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// `0.93 (0.91–0.95)`
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// One comparison.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is compared, such as `100 in flight, orders/s`.
    pub what: String,
    /// Ours over theirs, pair by pair; or a figure that is judged by itself.
    pub ratio: Spread,
    /// What it should be, where that was set.
    pub target: Option<Target>,
    /// Our figure.
    pub ours: String,
    /// What it is compared with.
    pub theirs: String,
    /// Whatever else tells something: latencies, CPU per order, memory.
    pub details: String,
}

/// The comparisons of one scenario.
#[derive(Debug, Clone)]
pub struct Section {
    /// The scenario's name.
    pub title: &'static str,
    /// What was run, and against what.
    pub about: String,
    /// What came out.
    pub rows: Vec<Row>,
}

/// As Markdown, which reads well on a terminal too.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.about)?;
        writeln!(f, "| ratio: median (min–max) | target | met | what | ours | compared with | details |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for Row { what, ratio, target, ours, theirs, details } in &self.rows {
            let met = target.map_or("", |target| if target.is_met(ratio.median) { "yes" } else { "**no**" });
            let target = target.map(|target| target.to_string()).unwrap_or_default();
            writeln!(f, "| {ratio} | {target} | {met} | {what} | {ours} | {theirs} | {details} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]).to_string(), "7.00 (7.00–7.00)");
        assert_eq!(format!("{:.0}", Spread::of([9_000.4, 9_100.0, 9_050.0])), "9050 (9000–9100)");
    }

    #[test]
    fn a_target_is_met_at_its_bound() {
        assert!(Target::AtLeast(0.9).is_met(0.9) && !Target::AtLeast(0.9).is_met(0.899));
        assert!(Target::AtMost(4.0).is_met(4.0) && !Target::AtMost(4.0).is_met(4.1));
        assert!(!Target::AtMost(4.0).is_met(f64::NAN) && !Target::AtLeast(4.0).is_met(f64::NAN));
    }

    #[test]
    fn a_section_begins_each_row_with_its_ratio() {
        let row = Row {
            what: "100 in flight".into(),
            ratio: Spread::of([0.5]),
            target: Some(Target::AtLeast(0.9)),
            ours: "1".into(),
            theirs: "2".into(),
            details: String::new(),
        };
        let section = Section { title: "throughput", about: "Two lines.".into(), rows: vec![row] };
        let text = section.to_string();
        assert!(text.starts_with("## throughput\n\nTwo lines.\n\n| ratio"), "{text}");
        assert!(text.ends_with("\n| 0.50 (0.50–0.50) | ≥ 0.9 | **no** | 100 in flight | 1 | 2 |  |\n"), "{text}");
    }
}
