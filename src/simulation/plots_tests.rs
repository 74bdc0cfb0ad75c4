//! Draws the plots of `docs/judging.md` into `docs/judging/`.

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::statistics_tests::{Harmless, detection, highest_of, kinds};

const SIZE: (u32, u32) = (820, 460);

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/judging");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// What a line shows, and its points.
type Line = (String, Vec<(f64, f64)>);

/// Lines in a chart whose axes are both logarithmic.
fn chart(path: &Path, titles: [&str; 3], x: std::ops::Range<f64>, y: std::ops::Range<f64>, lines: &[Line]) {
    let [title, x_title, y_title] = titles;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(x.log_scale(), y.log_scale())
        .unwrap();
    let short = |value: &f64| format!("{value}");
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .light_line_style(BLACK.mix(0.05))
        .draw()
        .unwrap();
    for (i, (name, points)) in lines.iter().enumerate() {
        let color = if i == 0 { BLACK.to_rgba() } else { Palette99::pick(i).to_rgba() };
        let drawn =
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2))).unwrap();
        drawn
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    let place = SeriesLabelPosition::UpperRight;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).draw().unwrap();
    area.present().unwrap();
}

#[test]
#[ignore = "writes docs/judging/false-alarms.svg, in minutes of a release build"]
fn plot_false_alarms() {
    let bound = (0..=30).map(|i| 10_f64.powf(f64::from(i) / 10.0)).map(|e| (e, 1.0 / e)).collect();
    let mut lines: Vec<Line> = vec![("1 / e: the most that is allowed".to_owned(), bound)];
    let picked = [0, 1, 4, 6, 9, 13];
    let all = kinds();
    let single = Harmless::new(0.001, &[1.0]);
    for case in std::iter::once(&single).chain(picked.iter().map(|i| &all[*i])) {
        let mut highest = highest_of(case, 2_000, 100_000);
        highest.sort_by(|a, b| b.total_cmp(a));
        let part = |i: usize| (i + 1) as f64 / highest.len() as f64;
        let points = highest
            .iter()
            .enumerate()
            .filter(|(i, _)| *i < 20 || i % 20 == 0)
            .map(|(i, log)| (log.exp(), part(i)));
        lines.push((case.name.clone(), points.filter(|(e, _)| (1.0..1_000.0).contains(e)).collect()));
    }
    let titles =
        ["Rollouts of a canary that is no worse", "e-value", "part of the rollouts that ever came so far"];
    chart(&file("false-alarms.svg"), titles, 1.0..1_000.0, 0.0005..1.0, &lines);
}

#[test]
#[ignore = "writes docs/judging/detection.svg, in minutes of a release build"]
fn plot_detection() {
    let rates = [0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
    let lines: Vec<Line> = [0.1, 1.0, 5.0, 25.0, 50.0]
        .into_iter()
        .map(|weight| {
            let found = rates.iter().map(|rate| (*rate, detection(100.0, weight, 0.001, *rate, 100)));
            let certain = found.filter(|(_, found)| found.caught > 0.5).map(|(rate, found)| {
                // The median of all, also of those that were not caught within the hour.
                (100.0 * rate, if found.caught > 0.99 { found.median } else { f64::NAN })
            });
            (format!("at {weight} %"), certain.filter(|(_, median)| median.is_finite()).collect())
        })
        .collect();
    let titles = [
        "100 requests/s, stable fails 0.1 %: until the canary is caught",
        "the canary fails, % of its requests",
        "seconds (median)",
    ];
    chart(&file("detection.svg"), titles, 0.2..50.0, 0.1..3_600.0, &lines);
}
