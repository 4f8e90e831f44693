//! Plain tables with one column a split.

use std::fmt::{self, Write};

/// Rows of a label and one cell a column; labels left, cells right, no borders.
pub(crate) struct Table {
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = String>) -> Self {
        Self { rows: vec![(String::new(), header.into_iter().collect())] }
    }

    pub(crate) fn row(&mut self, label: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        self.rows.push((label.into(), cells.into_iter().collect()));
    }

    /// A label that heads the rows after it.
    pub(crate) fn heading(&mut self, label: &str) {
        self.rows.push((label.to_owned(), Vec::new()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label_width = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let columns = self.rows.first().map_or(0, |(_, cells)| cells.len());
        let width = |column: usize| {
            self.rows.iter().filter_map(|(_, cells)| cells.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (label, cells) in &self.rows {
            let mut line = format!("{label:label_width$}");
            for (cell, width) in cells.iter().zip(&widths) {
                write!(line, "  {cell:>width$}")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
