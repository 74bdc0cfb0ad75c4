//! What was measured, as it is kept: every round of every case, and what it was measured with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The machine, and how busy it was.
    pub(crate) machine: BTreeMap<String, String>,
    /// What each peer says of its version.
    pub(crate) versions: BTreeMap<String, String>,
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// What was measured, one after the other.
    pub(crate) rows: Vec<Row>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) peer: String,
    pub(crate) round: usize,
    /// By name; units are in the names or in README.md.
    pub(crate) values: BTreeMap<String, f64>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is no result of this laboratory", path.display()))
    }

    /// Writes a row to a line, so that two results can be compared by eye.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let rows: Vec<String> = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let text = format!(
            "{{\"machine\": {},\n\"versions\": {},\n\"seconds\": {},\n\"rows\": [\n{}\n]}}\n",
            serde_json::to_string(&self.machine)?,
            serde_json::to_string(&self.versions)?,
            self.seconds,
            rows.join(",\n")
        );
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Adds what was measured.
    pub(crate) fn keep(&mut self, case: &str, peer: &str, round: usize, values: Vec<(&str, f64)>) {
        let values: BTreeMap<String, f64> =
            values.into_iter().map(|(name, value)| (name.to_owned(), (value * 1e3).round() / 1e3)).collect();
        self.rows.push(Row { case: case.to_owned(), peer: peer.to_owned(), round, values });
    }

    /// The names of the cases, as they were measured first.
    pub(crate) fn cases(&self) -> Vec<&str> {
        in_order(self.rows.iter().map(|row| row.case.as_str()))
    }

    /// What one value of a peer was in each round of a case.
    pub(crate) fn rounds(&self, case: &str, peer: &str, value: &str) -> BTreeMap<usize, f64> {
        let rows = self.rows.iter().filter(|row| row.case == case && row.peer == peer);
        rows.filter_map(|row| Some((row.round, *row.values.get(value)?))).collect()
    }

    /// The median of a value over the rounds, if it was measured.
    pub(crate) fn median(&self, case: &str, peer: &str, value: &str) -> Option<f64> {
        spread(self.rounds(case, peer, value).values().copied()).map(|(_, median, _)| median)
    }

    /// `one` divided by `other` in each round that has both: the least, the median, the greatest.
    pub(crate) fn ratio(&self, case: &str, one: &str, other: &str, value: &str) -> Option<(f64, f64, f64)> {
        let others = self.rounds(case, other, value);
        let ones = self.rounds(case, one, value);
        spread(ones.iter().filter_map(|(round, one)| Some(one / others.get(round)?)))
    }
}

/// Each once, where it came first.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The least, the median and the greatest; none of nothing.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    let (low, high) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
    Some((first, (low + high) / 2.0, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(peer: &str, round: usize, cpu: f64) -> Row {
        let values = [("cpu_us".to_owned(), cpu)].into();
        Row { case: "1k".to_owned(), peer: peer.to_owned(), round, values }
    }

    #[test]
    fn ratios_are_within_a_round() {
        let rows = vec![
            row("a", 1, 10.0),
            row("b", 1, 20.0),
            row("b", 2, 40.0),
            row("a", 2, 10.0),
            row("a", 3, 1.0),
        ];
        let results = Results { rows, ..Results::default() };
        assert_eq!(results.ratio("1k", "a", "b", "cpu_us"), Some((0.25, 0.375, 0.5)));
        assert_eq!(results.ratio("1k", "a", "c", "cpu_us"), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_both() {
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), Some((1.0, 2.5, 4.0)));
        assert_eq!(spread([4.0, 1.0, 2.0].into_iter()), Some((1.0, 2.0, 4.0)));
    }
}
