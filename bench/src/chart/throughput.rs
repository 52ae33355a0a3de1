use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor};

use super::{Area, ECHO, FAINT_INK, GRID, INK, Level, OURS, font, header, thousands};
use crate::report::Spread;

/// Of the room for one level.
const BAR: f64 = 0.27;

/// Bars side by side, each with its figure, and a line from the slowest run to the fastest.
pub(super) fn draw(paper: &Area<'_>, levels: &[Level]) -> Result<()> {
    let legend = [("ms-inventory", OURS), ("echo, the ceiling", ECHO)];
    let below = "Orders answered per second; medians, with the slowest and the fastest run. The echo has no database.";
    let plot = header(paper, "How many orders a second", below, &legend)?;
    let top = levels.iter().map(|level| level.ours.max.max(level.echo.max)).fold(1.0, f64::max) * 1.12;
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(24)
        .margin_left(16)
        .x_label_area_size(58)
        .y_label_area_size(66)
        .build_cartesian_2d(0.0..levels.len().max(1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|rate| thousands(*rate))
        .y_desc("orders/s")
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(super::PAPER)
        .label_style(font(13, FAINT_INK))
        .axis_desc_style(font(13, FAINT_INK))
        .draw()?;
    for (number, level) in levels.iter().enumerate() {
        let middle = number as f64 + 0.5;
        for (from, Spread { median, min, max }, colour) in
            [(middle - BAR, level.ours, OURS), (middle, level.echo, ECHO)]
        {
            let (left, right, centre) = (from + 0.01, from + BAR - 0.01, from + BAR / 2.0);
            chart.draw_series([Rectangle::new([(left, 0.0), (right, median)], colour.filled())])?;
            chart.draw_series([PathElement::new([(centre, min), (centre, max)], INK.mix(0.65).stroke_width(2))])?;
            chart.draw_series([label(thousands(median), (centre, max + top * 0.012), 14, INK)])?;
        }
        let under = |text: String, pixels: i32, size: u32, colour: RGBColor| {
            let (x, y) = chart.backend_coord(&(middle, 0.0));
            let style = font(size, colour).pos(Pos::new(HPos::Center, VPos::Top));
            Text::new(text, (x, y + pixels), style)
        };
        let ratio = format!("{:.2} of the echo", level.ratio.median);
        paper.draw(&under(format!("{} in flight", thousands(level.in_flight as f64)), 10, 15, INK))?;
        paper.draw(&under(ratio, 31, 13, FAINT_INK))?;
    }
    Ok(())
}

fn label(text: String, at: (f64, f64), size: u32, colour: RGBColor) -> Text<'static, (f64, f64), String> {
    Text::new(text, at, font(size, colour).pos(Pos::new(HPos::Center, VPos::Bottom)))
}
