use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::element::{Circle, Text};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor};

use super::{Area, ECHO, FAINT_INK, GRID, Latency, OURS, font, header, thousands};

/// Pixels between two names at the ends of lines.
const LINE_HEIGHT: i32 = 18;

struct Line {
    name: &'static str,
    colour: RGBColor,
    /// p99 is what counts; p50 is thin.
    width: u32,
    of: fn(&Latency) -> f64,
}

const LINES: [Line; 4] = [
    Line { name: "ms-inventory p99", colour: OURS, width: 3, of: |latency| latency.ours.1 },
    Line { name: "echo p99", colour: ECHO, width: 3, of: |latency| latency.echo.1 },
    Line { name: "ms-inventory p50", colour: OURS, width: 1, of: |latency| latency.ours.0 },
    Line { name: "echo p50", colour: ECHO, width: 1, of: |latency| latency.echo.0 },
];

/// p50 and p99 of both sides over the rate, each line with its name at its end.
pub(super) fn draw(paper: &Area<'_>, rates: &[Latency]) -> Result<()> {
    let legend = [("ms-inventory", OURS), ("echo, the ceiling", ECHO)];
    let below = "From the moment an order was due to its answer; orders come at random moments, whatever is answered.";
    let plot = header(paper, "How long an order waits", below, &legend)?;
    let all = || rates.iter().flat_map(|latency| LINES.iter().map(|line| (line.of)(latency).max(0.01)));
    let (low, high) = (all().fold(1.0, f64::min), all().fold(10.0, f64::max));
    let most = rates.iter().map(|latency| latency.per_second).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(140)
        .margin_left(16)
        .margin_bottom(10)
        .x_label_area_size(48)
        .y_label_area_size(66)
        .build_cartesian_2d(0.0..most, (low * 0.7..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(8)
        .x_label_formatter(&|rate| thousands(*rate))
        .y_label_formatter(&|latency| format!("{latency}"))
        .x_desc("orders per second")
        .y_desc("milliseconds, log scale")
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(super::PAPER)
        .label_style(font(13, FAINT_INK))
        .axis_desc_style(font(13, FAINT_INK))
        .draw()?;
    for Line { colour, width, of, .. } in LINES {
        let points = || rates.iter().map(|latency| (latency.per_second, of(latency).max(0.01)));
        chart.draw_series(LineSeries::new(points(), colour.stroke_width(width)))?;
        let size = if width > 1 { 4 } else { 2 };
        chart.draw_series(points().map(|point| Circle::new(point, size, colour.filled())))?;
    }
    if let Some(last) = rates.last() {
        let end = |line: &Line| chart.backend_coord(&(last.per_second, (line.of)(last).max(0.01)));
        let mut names: Vec<(i32, &Line)> = LINES.iter().map(|line| (end(line).1, line)).collect();
        names.sort_by_key(|(y, _)| *y);
        let mut free = i32::MIN;
        for (y, line) in names {
            let y = y.max(free);
            free = y + LINE_HEIGHT;
            let style = font(13, line.colour).pos(Pos::new(HPos::Left, VPos::Center));
            paper.draw(&Text::new(line.name, (end(line).0 + 12, y), style))?;
        }
    }
    Ok(())
}
