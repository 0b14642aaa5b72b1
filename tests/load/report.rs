//! The report of a measurement: Markdown, JSON, plots.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use crate::chart::Chart;
use crate::machine::Facts;
use crate::options::Common;

/// A table with a note that explains it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    note: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(note: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { note: note.to_owned(), columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.note.is_empty() {
            text = format!("{}\n\n", self.note);
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&self.columns));
        let rules: Vec<String> = (0..self.columns.len())
            .map(|index| if index == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        text.push_str(&line(&rules));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// The report of one command.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    facts: Facts,
    tables: Vec<Table>,
    raw: Vec<Value>,
    charts: Vec<(String, Chart)>,
}

impl Report {
    pub(crate) fn new(title: &str, facts: Facts) -> Self {
        let title = title.to_owned();
        Self { title, facts, tables: Vec::new(), raw: Vec::new(), charts: Vec::new() }
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Adds the raw figures of one run.
    pub(crate) fn raw(&mut self, run: &impl Serialize) {
        // NaN becomes null.
        self.raw.push(serde_json::to_value(run).expect("figures are JSON"));
    }

    /// Adds the raw figures of one run, and prints them as progress.
    pub(crate) fn record(&mut self, run: &impl Serialize) -> anyhow::Result<()> {
        eprintln!("{}", serde_json::to_string(run)?);
        self.raw(run);
        Ok(())
    }

    /// Adds a plot. If there are several, its name becomes part of the file name.
    pub(crate) fn chart(&mut self, name: &str, chart: Chart) {
        self.charts.push((name.to_owned(), chart));
    }

    /// Prints the report and writes the files of the options.
    pub(crate) fn publish(&self, options: &Common) -> anyhow::Result<()> {
        print!("{}", self.markdown());
        if let Some(path) = &options.json {
            let facts = self.facts.iter().map(|(name, value)| json!({ name: value }));
            let facts: Vec<_> = facts.collect();
            let all = json!({ "title": self.title, "facts": facts, "runs": self.raw });
            write(path, &serde_json::to_string_pretty(&all)?)?;
        }
        if let Some(path) = &options.svg {
            for (name, chart) in &self.charts {
                let path = if self.charts.len() == 1 { path.clone() } else { named(path, name) };
                write(&path, &chart.svg())?;
            }
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        for (name, value) in &self.facts {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {name}: {value}");
        }
        for table in &self.tables {
            text.push('\n');
            text.push_str(&table.markdown());
        }
        text
    }
}

/// Adds a name to the path of an SVG file: `growth.svg` with `connections` is `growth-connections.svg`.
fn named(path: &Path, name: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{name}.svg"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_markdown() {
        let mut report = Report::new("Compare", vec![("date".to_owned(), "today".to_owned())]);
        let mut table = Table::new("Lower is better.", &["server", "CPU"]);
        table.row(["belfry".to_owned(), "33".to_owned()]);
        report.table(table);
        let expected = "## Compare\n\n- date: today\n\nLower is better.\n\n\
            | server | CPU |\n| --- | ---: |\n| belfry | 33 |\n";
        assert_eq!(report.markdown(), expected);
    }

    #[test]
    fn plot_name_is_added_to_the_file_name() {
        assert_eq!(named(Path::new("a/growth.svg"), "inbox"), Path::new("a/growth-inbox.svg"));
    }
}
