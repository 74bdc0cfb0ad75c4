//! What was measured as a picture: CPU for each request, and latencies.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::peer::Kind;
use crate::results::Results;

const WIDTH: u32 = 860;
/// Of each of both charts.
const HEIGHT: u32 = 360;
/// The cases of the upper chart, and what they are called there.
const CPU: [(&str, &str); 6] = [
    ("tiny", "2 bytes"),
    ("1k", "1 KB"),
    ("rich", "1 KB, 10+10 fields"),
    ("post256", "POST 256 B"),
    ("post16k", "POST 16 KiB"),
    ("64k", "64 KiB"),
];
const LATENCY: [(&str, &str); 3] = [("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")];

/// Groups of bars: what a group is called, and the value of each peer.
type Groups = Vec<(String, Vec<Option<f64>>)>;

/// Draws it into a file.
pub(crate) fn draw(results: &Results, path: &Path) -> anyhow::Result<()> {
    let peers: Vec<&str> = Kind::value_variants()
        .iter()
        .map(|kind| kind.name())
        .filter(|name| results.versions.contains_key(*name))
        .collect();
    let groups = |of: &[(&str, &str)], value: &dyn Fn(&str, &str) -> Option<f64>| -> Groups {
        of.iter()
            .map(|(key, title)| {
                ((*title).to_owned(), peers.iter().map(|peer| value(key, peer)).collect::<Vec<_>>())
            })
            .filter(|(_, values)| values.iter().any(Option::is_some))
            .collect()
    };
    let cpu = groups(&CPU, &|case, peer| results.median(case, peer, "cpu_us"));
    let latency = groups(&LATENCY, &|value, peer| results.median("latency-same", peer, value));
    ensure!(
        !cpu.is_empty(),
        "there is nothing to draw: no case of {:?} was measured",
        CPU.map(|(case, _)| case)
    );
    let height = if latency.is_empty() { HEIGHT } else { 2 * HEIGHT };
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (upper, lower) = area.split_vertically(HEIGHT);
    let title = "CPU for each request, one worker, µs (median of the rounds)";
    bars(&upper, title, Scale::Linear, &peers, &cpu)?;
    if !latency.is_empty() {
        let title = "Latency at the same rate for all, open loop, µs (logarithmic)";
        bars(&lower, title, Scale::Logarithmic, &peers, &latency)?;
    }
    area.present().with_context(|| path.display().to_string())
}

/// How values become heights.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Logarithmic,
}

impl Scale {
    fn height(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1.0).log10(),
        }
    }

    /// What stands beside a height; between powers of ten, nothing.
    fn label(self, height: f64) -> String {
        match self {
            Scale::Linear => format!("{height:.0}"),
            Scale::Logarithmic if height.fract().abs() < 0.01 => format!("{:.0}", 10_f64.powf(height)),
            Scale::Logarithmic => String::new(),
        }
    }
}

fn bars(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    scale: Scale,
    peers: &[&str],
    groups: &Groups,
) -> anyhow::Result<()> {
    let heights = || groups.iter().flat_map(|(_, values)| values).flatten().map(|value| scale.height(*value));
    let least = if scale == Scale::Linear { 0.0 } else { heights().fold(f64::INFINITY, f64::min).floor() };
    let most = heights().fold(0.0, f64::max);
    let most = least + (most - least) * 1.1;
    let names: Vec<String> = groups.iter().map(|(name, _)| name.clone()).collect();
    // The last place is for what the colours are.
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..(groups.len() + 1) as f64, least..most)?;
    let label = |at: &f64| {
        let middle = (at.fract() - 0.5).abs() < 0.01;
        names.get(at.floor() as usize).filter(|_| middle).cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * groups.len() + 3)
        .x_label_formatter(&label)
        .y_label_formatter(&|height| scale.label(*height))
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    let width = 0.8 / peers.len() as f64;
    for (i, peer) in peers.iter().enumerate() {
        let color =
            if *peer == Kind::Serinus.name() { BLACK.to_rgba() } else { Palette99::pick(i).to_rgba() };
        let rectangles = groups.iter().enumerate().filter_map(|(group, (_, values))| {
            let left = group as f64 + 0.1 + width * i as f64;
            let value = values.get(i).copied().flatten()?;
            Some(Rectangle::new([(left, least), (left + width * 0.9, scale.height(value))], color.filled()))
        });
        chart
            .draw_series(rectangles)?
            .label(*peer)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    let place = SeriesLabelPosition::UpperRight;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}
