//! Tables of changes: of Serinus under load (`changes`), and side by side (`swap`).

use std::fmt::Write;

use crate::changes;
use crate::report::table;
use crate::results::{Results, spread};
use crate::swap;

/// Both, where they were measured.
pub(crate) fn tables(text: &mut String, results: &Results) {
    under_load(text, results);
    side_by_side(text, results);
}

fn under_load(text: &mut String, results: &Results) {
    let variants: Vec<&str> = changes::names();
    let measured = |name: &&str| results.median("changes", name, "p99_us").is_some();
    let Some(quiet) = variants.first().filter(|name| measured(name)).copied() else { return };
    let rows = [
        ("p50_us", 0),
        ("p99_us", 0),
        ("p999_us", 0),
        ("request_us", 1),
        ("busy_percent", 1),
        ("calls_per_second", 0),
        ("call_p50_us", 0),
        ("call_p99_us", 0),
        ("pods_per_second", 0),
        ("swaps_per_second", 0),
        ("memory_kib", 0),
    ];
    let names = rows.map(|(name, _)| name);
    let rate = changes::RATE;
    let title = format!("Changes of Serinus under {rate} requests/s: median (least–greatest round)");
    table(text, &title, &names, &variants, |row, variant| {
        let digits = rows.iter().find(|(name, _)| *name == row).map_or(0, |(_, digits)| *digits);
        let (least, median, greatest) = spread(results.rounds("changes", variant, row).into_values())?;
        Some(format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})"))
    });
    let others: Vec<&str> = variants.iter().copied().filter(|name| *name != quiet).collect();
    let rows = ["p50_us", "p99_us", "p999_us", "request_us"];
    table(
        text,
        "… divided by quiet, within a round: median (middle half) [least–greatest]",
        &rows,
        &others,
        |row, variant| {
            let quiets = results.rounds("changes", quiet, row);
            let rounds = results.rounds("changes", variant, row);
            let mut ratios: Vec<f64> =
                rounds.iter().filter_map(|(round, value)| Some(value / quiets.get(round)?)).collect();
            ratios.sort_by(f64::total_cmp);
            let (least, median, greatest) = spread(ratios.iter().copied())?;
            let at = |part: usize| ratios.get((ratios.len() - 1) * part / 4).copied().unwrap_or(f64::NAN);
            Some(format!("{median:.2} ({:.2}–{:.2}) [{least:.2}–{greatest:.2}]", at(1), at(3)))
        },
    );
    for variant in variants {
        let sum = |row| results.rounds("changes", variant, row).into_values().sum::<f64>();
        let (requests, failures, closed) = (sum("requests"), sum("failures"), sum("closed"));
        let _ = writeln!(
            text,
            "\n{variant}: {requests} requests, {failures} failed, {closed} idle connections closed"
        );
    }
}

/// What is a row of the table, its value, and what it is divided by.
const ROWS: [(&str, &str, f64, usize); 24] = [
    ("the call, or the command, takes, ms: median", "call_p50_us", 1e3, 2),
    ("… longest of 50", "call_most_us", 1e3, 2),
    ("from then to the first answer under the new weights, ms: median", "first_p50_us", 1e3, 2),
    ("… longest", "first_most_us", 1e3, 2),
    (
        "from then to the last request sent that was served under the old ones, ms: median",
        "last_p50_us",
        1e3,
        2,
    ),
    ("… longest", "last_most_us", 1e3, 2),
    ("CPU of a change, µs", "change_cpu_us", 1.0, 0),
    ("changes/s at most, each seen in force", "seen_per_second", 1.0, 0),
    ("… each answered", "answers_per_second", 1.0, 0),
    ("requests under load", "requests", 1.0, 0),
    ("… that failed", "failures", 1.0, 0),
    ("busy connections closed between requests (of 64, 50 changes)", "closed", 1.0, 0),
    ("idle connections closed (of 100)", "idle_closed", 1.0, 0),
    ("WebSockets lost (of 70)", "sockets_lost", 1.0, 0),
    ("p99 before the changes, µs", "quiet_p99_us", 1.0, 0),
    ("p99 during the changes, µs", "changing_p99_us", 1.0, 0),
    ("memory (Pss) before, MiB", "before_kib", 1024.0, 1),
    ("… at most", "most_kib", 1024.0, 1),
    ("… when clients and WebSockets have gone", "after_kib", 1024.0, 1),
    ("resident memory summed (Rss) before, MiB", "before_resident_kib", 1024.0, 1),
    ("… at most", "most_resident_kib", 1024.0, 1),
    ("… when clients and WebSockets have gone", "after_resident_kib", 1024.0, 1),
    ("processes before", "before_processes", 1.0, 0),
    ("… at most", "most_processes", 1.0, 0),
];

fn side_by_side(text: &mut String, results: &Results) {
    let peers: Vec<&str> =
        swap::NAMES.into_iter().filter(|peer| results.median("swap", peer, "requests").is_some()).collect();
    if peers.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\nChanges side by side: median (least–greatest round)\n\n| | {} |\n|---|{}",
        peers.join(" | "),
        "---|".repeat(peers.len())
    );
    for (title, value, unit, digits) in ROWS {
        let cell = |peer: &&str| {
            let (least, median, greatest) = spread(results.rounds("swap", peer, value).into_values())?;
            let [least, median, greatest] = [least, median, greatest].map(|value| value / unit);
            Some(format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})"))
        };
        let cells: Vec<String> =
            peers.iter().map(|peer| cell(peer).unwrap_or_else(|| "–".to_owned())).collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
}
