//! What was measured, as pictures for the README: SVG on a background of its own, so that it can be read on any page.

mod latency;
mod throughput;

use std::fmt::Write as _;

use anyhow::Result;
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle};

use crate::report::Spread;

/// Pixels.
const SIZE: (u32, u32) = (880, 460);

/// Pixels above the plot, for what it shows and which colour is whose.
const HEADER: u32 = 78;

const PAPER: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(31, 35, 40);
const FAINT_INK: RGBColor = RGBColor(89, 99, 110);
const GRID: RGBColor = RGBColor(228, 232, 236);
const OURS: RGBColor = RGBColor(9, 105, 218);
const ECHO: RGBColor = RGBColor(118, 127, 138);

/// A picture, and what is in it.
#[derive(Debug, Clone)]
pub enum Chart {
    /// Orders per second by orders in flight.
    Throughput(Vec<Level>),
    /// Latency by orders per second.
    Latency(Vec<Latency>),
}

/// Orders per second at one number of orders in flight.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    /// Orders in flight.
    pub in_flight: usize,
    /// ms-inventory.
    pub ours: Spread,
    /// The echo.
    pub echo: Spread,
    /// Ours, run by run, as a part of the echo's.
    pub ratio: Spread,
}

/// p50 and p99 in milliseconds at one rate.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Orders per second.
    pub per_second: f64,
    /// ms-inventory.
    pub ours: (f64, f64),
    /// The echo.
    pub echo: (f64, f64),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    /// The file it belongs in.
    pub fn file_name(&self) -> &'static str {
        match self {
            Self::Throughput(_) => "throughput.svg",
            Self::Latency(_) => "latency.svg",
        }
    }

    /// Draws it as SVG.
    pub fn draw(&self) -> Result<String> {
        let mut text = String::new();
        let paper = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        paper.fill(&PAPER)?;
        match self {
            Self::Throughput(levels) => throughput::draw(&paper, levels)?,
            Self::Latency(rates) => latency::draw(&paper, rates)?,
        }
        paper.present()?;
        drop(paper);
        Ok(text)
    }
}

/// The title, a line below it, and a legend; what is left is the plot's.
fn header<'a>(paper: &Area<'a>, title: &str, below: &str, legend: &[(&str, RGBColor)]) -> Result<Area<'a>> {
    paper.draw(&Text::new(title.to_owned(), (24, 18), font(19, INK).pos(Pos::new(HPos::Left, VPos::Top))))?;
    paper.draw(&Text::new(below.to_owned(), (24, 46), font(13, FAINT_INK).pos(Pos::new(HPos::Left, VPos::Top))))?;
    let mut right = SIZE.0 as i32 - 24;
    for (name, colour) in legend.iter().rev() {
        // The backend does not know how wide a browser's letters are.
        right -= name.chars().count() as i32 * 7 + 19;
        paper.draw(&Rectangle::new([(right, 22), (right + 13, 35)], colour.filled()))?;
        paper.draw(&Text::new(
            (*name).to_owned(),
            (right + 19, 22),
            font(14, INK).pos(Pos::new(HPos::Left, VPos::Top)),
        ))?;
        right -= 24;
    }
    Ok(paper.split_vertically(HEADER).1)
}

fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("-apple-system, Segoe UI, Helvetica, Arial, sans-serif", size, FontStyle::Normal).into_font().color(&colour)
}

/// `12 345`
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{digit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_charts_are_drawn_with_axes_legend_and_figures() {
        let spread = |median: f64| Spread::of([median * 0.95, median, median * 1.04]);
        let levels = [(1, 590.0, 1_200.0), (100, 12_300.0, 13_400.0), (1_000, 15_100.0, 15_600.0)];
        let levels = levels.map(|(in_flight, ours, echo)| Level {
            in_flight,
            ours: spread(ours),
            echo: spread(echo),
            ratio: spread(ours / echo),
        });
        let throughput = Chart::Throughput(levels.to_vec()).draw().unwrap();
        for text in ["orders/s", "ms-inventory", "echo", "1\u{202f}000 in flight", "12\u{202f}300"] {
            assert!(throughput.contains(text), "{text}");
        }
        let rates = (1..=10).map(|tenth| {
            let load = f64::from(tenth) / 10.0;
            let wait = |base: f64| (base / (1.03 - load), base * 3.0 / (1.03 - load));
            Latency { per_second: 15_000.0 * load, ours: wait(1.9), echo: wait(1.1) }
        });
        let latency = Chart::Latency(rates.collect()).draw().unwrap();
        for text in ["milliseconds", "orders per second", "ms-inventory p99", "echo p50"] {
            assert!(latency.contains(text), "{text}");
        }
        if let Ok(folder) = std::env::var("CHARTS") {
            std::fs::write(format!("{folder}/throughput.svg"), throughput).unwrap();
            std::fs::write(format!("{folder}/latency.svg"), latency).unwrap();
        }
    }

    #[test]
    fn a_chart_of_one_rate_or_of_none_is_drawn_too() {
        let one = Latency { per_second: 100.0, ours: (1.0, 1.0), echo: (1.0, 1.0) };
        for chart in [Chart::Latency(vec![one]), Chart::Latency(Vec::new()), Chart::Throughput(Vec::new())] {
            assert!(chart.draw().unwrap().starts_with("<svg"));
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(999.6), "1\u{202f}000");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(thousands(1_234_567.0), "1\u{202f}234\u{202f}567");
    }
}
