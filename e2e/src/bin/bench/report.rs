//! What a bench found, as JSON for programs and as a table for people.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use patina_e2e::paths;

/// One run of one bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `alloc`, `l2`, ...
    pub(crate) name: String,
    /// Where it ran: numbers without it mean nothing.
    pub(crate) machine: Machine,
    /// A hash of the programs that were measured: the same only for the same build.
    #[serde(default)]
    pub(crate) programs: String,
    /// What was measured.
    pub(crate) rows: Vec<Row>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Stable name.
    pub(crate) metric: String,
    /// The number.
    pub(crate) value: f64,
    /// `ms`, `MB`, ...
    pub(crate) unit: String,
    /// How many samples it comes from.
    pub(crate) n: usize,
    /// What exactly was measured.
    pub(crate) note: String,
}

impl Row {
    /// A number with what exactly it is.
    pub(crate) fn new(metric: &str, value: f64, unit: &str, n: usize, note: impl Into<String>) -> Row {
        // Three digits behind the point are more than any of these measurements is worth.
        let value = (value * 1000.0).round() / 1000.0;
        Row { metric: metric.to_owned(), value, unit: unit.to_owned(), n, note: note.into() }
    }
}

impl Report {
    /// Writes `target/bench/<name>.json`. With `into`, rows that are there already stay when they are of the same programs
    /// on the same machine and none of ours has their name: so a bench of many parts can be run part by part.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, into: bool) -> Result<PathBuf> {
        let dir = paths::target_dir().join("bench");
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}.json", self.name));
        let before = fs::read_to_string(&path).ok().filter(|_| into);
        // What cannot be read was written by another version of this program.
        let before = before.and_then(|text| serde_json::from_str::<Report>(&text).ok());
        let whole = before.map_or_else(|| self.clone(), |before| before.with(self));
        let text = serde_json::to_string_pretty(&whole)?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// This report with the rows of a later one in it, or the later one alone when the two do not belong together.
    fn with(mut self, later: &Report) -> Report {
        if self.programs != later.programs || !self.machine.is(&later.machine) {
            return later.clone();
        }
        for row in &later.rows {
            match self.rows.iter_mut().find(|old| old.metric == row.metric) {
                Some(old) => *old = row.clone(),
                None => self.rows.push(row.clone()),
            }
        }
        self
    }

    /// The same as a Markdown table, which is a table for people too.
    pub(crate) fn table(&self) -> String {
        let cells: Vec<[String; 5]> =
            std::iter::once(["metric", "value", "unit", "n", "what"].map(str::to_owned))
                .chain(self.rows.iter().map(|row| {
                    [
                        row.metric.clone(),
                        row.value.to_string(),
                        row.unit.clone(),
                        row.n.to_string(),
                        row.note.clone(),
                    ]
                }))
                .collect();
        let mut widths = [0; 5];
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut lines: Vec<String> = cells.iter().map(|row| line(row, &widths)).collect();
        lines.insert(1, line(&widths.map(|width| "-".repeat(width)), &widths));
        lines.join("\n") + "\n"
    }
}

fn line(cells: &[String; 5], widths: &[usize; 5]) -> String {
    let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("| {} |", padded.join(" | "))
}

/// What is being done now: for whoever waits.
pub(crate) fn say(what: &str) {
    eprintln!("bench: {what}");
}

/// The middle one (the lower of two); 0 for none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// The value below which `share` of the sorted samples lie (nearest rank); 0 for no samples.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&samples, 1.0), 100.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.99), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_table_is_markdown() {
        let machine = crate::machine::describe();
        let rows = vec![Row::new("create_p50_ms", 2.71549, "ms", 100, "create")];
        let table = Report { name: "alloc".to_owned(), machine, programs: String::new(), rows }.table();
        let expected = "| metric        | value | unit | n   | what   |\n\
                        | ------------- | ----- | ---- | --- | ------ |\n\
                        | create_p50_ms | 2.715 | ms   | 100 | create |\n";
        assert_eq!(table, expected);
    }
    #[test]
    fn a_part_replaces_its_own_rows_of_the_same_programs_and_all_rows_of_others() {
        let report = |programs: &str, rows: &[(&str, f64)]| Report {
            name: "l2".to_owned(),
            machine: crate::machine::describe(),
            programs: programs.to_owned(),
            rows: rows.iter().map(|(metric, value)| Row::new(metric, *value, "ms", 1, "")).collect(),
        };
        let before = report("a", &[("kill", 1.0), ("link", 2.0)]);
        let values = |report: Report| -> Vec<(String, f64)> {
            report.rows.into_iter().map(|row| (row.metric, row.value)).collect()
        };
        let same = before.clone().with(&report("a", &[("link", 3.0), ("stop", 4.0)]));
        assert_eq!(values(same), [("kill".into(), 1.0), ("link".into(), 3.0), ("stop".into(), 4.0)]);
        assert_eq!(values(before.with(&report("b", &[("stop", 4.0)]))), [("stop".into(), 4.0)]);
    }
}
