//! Tables of what was measured, in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::ValueEnum;

use crate::peer::Kind;
use crate::report_changes;
use crate::results::{Results, spread};

/// Below this the peer waited for clients and pods: what it can is more.
const BUSY: f64 = 95.0;
/// The share of the canary that is asked for.
const SHARE: f64 = 0.01;

/// What of the machine one should know.
pub(crate) fn machine() -> BTreeMap<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned();
    if load.parse::<f64>().is_ok_and(|load| load > 0.5) {
        eprintln!("LOUD: other work runs here (load {load}): take the ratios, and repeat it in quiet");
    }
    let cores = std::thread::available_parallelism().map(|cores| cores.to_string()).unwrap_or_default();
    [
        ("cpu", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("load before", load),
        ("tcp", read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Everything as tables.
pub(crate) fn tables(results: &Results) -> String {
    let mut text = String::new();
    let peers: Vec<&str> = Kind::value_variants()
        .iter()
        .map(|kind| kind.name())
        .filter(|name| results.versions.contains_key(*name))
        .collect();
    for (name, value) in results.machine.iter().chain(&results.versions) {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let cases: Vec<&str> = results
        .cases()
        .into_iter()
        .filter(|case| peers.iter().any(|peer| results.median(case, peer, "cpu_us").is_some()))
        .collect();
    if !cases.is_empty() {
        let cell = |case: &str, peer: &str| spread_of(results, case, peer, "cpu_us", 1);
        table(&mut text, "CPU, µs a request: median (least–greatest round)", &cases, &peers, cell);
        let others: Vec<&str> = peers.iter().copied().filter(|peer| *peer != Kind::Serinus.name()).collect();
        let cell = |case: &str, peer: &str| {
            let (least, median, greatest) = results.ratio(case, Kind::Serinus.name(), peer, "cpu_us")?;
            Some(format!("{median:.2} ({least:.2}–{greatest:.2})"))
        };
        if others.len() + 1 == peers.len() && !others.is_empty() {
            table(&mut text, "CPU of Serinus divided by that of …, within a round", &cases, &others, cell);
        }
        table(&mut text, "Requests/s (`~`: the peer's core was not busy)", &cases, &peers, |case, peer| {
            rate(results, case, peer)
        });
        failures(&mut text, results, &cases, &peers);
    }
    latencies(&mut text, results, &peers);
    memory(&mut text, results, &peers);
    report_changes::tables(&mut text, results);
    text
}

fn spread_of(results: &Results, case: &str, peer: &str, value: &str, digits: usize) -> Option<String> {
    let (least, median, greatest) = spread(results.rounds(case, peer, value).into_values())?;
    Some(format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})"))
}

fn rate(results: &Results, case: &str, peer: &str) -> Option<String> {
    let busy = results.median(case, peer, "busy_percent")?;
    let mark = if busy < BUSY { "~" } else { "" };
    Some(format!("{mark}{:.0}", results.median(case, peer, "per_second")?))
}

pub(crate) fn table(
    text: &mut String,
    title: &str,
    rows: &[&str],
    columns: &[&str],
    cell: impl Fn(&str, &str) -> Option<String>,
) {
    let _ =
        writeln!(text, "\n{title}\n\n| | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<String> =
            columns.iter().map(|column| cell(row, column).unwrap_or_else(|| "–".to_owned())).collect();
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
}

/// What went otherwise than it must.
fn failures(text: &mut String, results: &Results, cases: &[&str], peers: &[&str]) {
    for case in cases {
        for peer in peers {
            let failed: f64 = results.rounds(case, peer, "failures").into_values().sum();
            if failed > 0.0 {
                let _ = writeln!(text, "\nFAILED: {case}, {peer}: {failed} requests");
            }
            if let Some(share) = wrong_share(results, case, peer) {
                let percent = share * 100.0;
                let _ = writeln!(
                    text,
                    "\nNOT THE SAME WORK: {case}, {peer}: {percent:.2} % to the canary, asked was 1 %"
                );
            }
            let resumed = results.median(case, peer, "resumed_percent");
            if let Some(resumed) = resumed.filter(|percent| *case == "tls-resumed" && *percent < 95.0) {
                let _ = writeln!(
                    text,
                    "\nNOT THE SAME WORK: {case}, {peer}: {resumed} % of the handshakes were resumed"
                );
            }
        }
    }
}

/// The share of the canary, if it is further from what was asked than chance would have it: five standard deviations, and a tenth.
fn wrong_share(results: &Results, case: &str, peer: &str) -> Option<f64> {
    let divides = Kind::value_variants().iter().any(|kind| kind.name() == peer && kind.reads_http());
    let sum = |value| results.rounds(case, peer, value).into_values().sum::<f64>();
    // Messages of a WebSocket go where its connection goes.
    let requests = sum("requests");
    if !divides || case == "ws" || requests == 0.0 {
        return None;
    }
    let share = sum("canary") / requests;
    let chance = 5.0 * (SHARE * (1.0 - SHARE) / requests).sqrt();
    ((share - SHARE).abs() > chance + SHARE / 10.0).then_some(share)
}

fn latencies(text: &mut String, results: &Results, peers: &[&str]) {
    for (case, title) in [
        ("latency-own", "Latency at half of what each can, µs from when a request was due"),
        ("latency-same", "Latency at the same rate for all, µs from when a request was due"),
    ] {
        let rows = ["rate", "p50_us", "p99_us", "p999_us", "failures"];
        if peers.iter().all(|peer| results.median(case, peer, "rate").is_none()) {
            continue;
        }
        table(text, title, &rows, peers, |value, peer| spread_of(results, case, peer, value, 0));
    }
}

fn memory(text: &mut String, results: &Results, peers: &[&str]) {
    let of = |peer: &str, value: &str| results.median("memory", peer, value);
    if peers.iter().all(|peer| of(peer, "idle_kib").is_none()) {
        return;
    }
    let rows = ["idle, MiB", "1,000 connections, MiB", "10,000 connections, MiB", "each of 10,000, KiB"];
    table(text, "Memory (Pss), of the process and its children", &rows, peers, |row, peer| {
        let idle = of(peer, "idle_kib")?;
        Some(match row {
            "idle, MiB" => format!("{:.1}", idle / 1024.0),
            "1,000 connections, MiB" => format!("{:.1}", of(peer, "at_1000_kib")? / 1024.0),
            "10,000 connections, MiB" => format!("{:.1}", of(peer, "at_10000_kib")? / 1024.0),
            _ => format!("{:.1}", (of(peer, "at_10000_kib")? - idle) / 10_000.0),
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Row;

    fn results(requests: f64, canary: f64, busy: f64) -> Results {
        let mut results = Results::default();
        for (peer, cpu) in [("nginx", 20.0), ("serinus", 10.0)] {
            results.versions.insert(peer.to_owned(), "1".to_owned());
            let values = [
                ("cpu_us", cpu),
                ("per_second", 1000.0),
                ("busy_percent", busy),
                ("requests", requests),
                ("canary", canary),
                ("failures", 0.0),
            ];
            let values = values.map(|(name, value)| (name.to_owned(), value)).into();
            results.rows.push(Row { case: "1k".to_owned(), peer: peer.to_owned(), round: 1, values });
        }
        results
    }

    #[test]
    fn the_tables_have_the_medians_and_the_ratios() {
        let text = tables(&results(100_000.0, 1_000.0, 99.0));
        assert!(text.contains("| 1k | 20.0 (20.0–20.0) | 10.0 (10.0–10.0) |"), "{text}");
        assert!(text.contains("| 1k | 0.50 (0.50–0.50) |"), "{text}");
        assert!(text.contains("| 1k | 1000 | 1000 |"), "{text}");
        assert!(!text.contains("NOT THE SAME WORK"), "{text}");
    }

    #[test]
    fn a_core_that_was_not_busy_and_a_wrong_share_are_shown() {
        let text = tables(&results(100_000.0, 2_000.0, 80.0));
        assert!(text.contains("| 1k | ~1000 | ~1000 |"), "{text}");
        assert!(text.contains("NOT THE SAME WORK: 1k, nginx: 2.00 % to the canary"), "{text}");
    }

    #[test]
    fn a_share_within_chance_is_none_to_tell() {
        let text = tables(&results(1_000.0, 17.0, 80.0));
        assert!(!text.contains("NOT THE SAME WORK"), "{text}");
    }
}
