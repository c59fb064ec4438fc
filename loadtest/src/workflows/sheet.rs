//! Tables of the workflows' section.

use std::fmt::Write as _;

use crate::say;

/// A table with a title.
#[derive(Debug)]
pub(super) struct Sheet {
    title: String,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Sheet {
    pub(super) fn new(title: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row, told at once to whoever watches.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        let told: Vec<String> =
            self.columns.iter().zip(&cells).map(|(column, cell)| format!("{column}: {cell}")).collect();
        say(&format!("    {}", told.join(", ")));
        self.rows.push(cells);
    }

    /// Adds a sentence below the table.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        say(&format!("    {text}"));
        self.notes.push(text);
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("\n### {}\n", self.title);
        if !self.rows.is_empty() {
            writeln!(text, "\n| {} |\n|{}", self.columns.join(" | "), "---|".repeat(self.columns.len())).ok();
        }
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).ok();
        }
        for note in &self.notes {
            writeln!(text, "\n{note}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Sheet;

    #[test]
    fn a_sheet_is_a_table_with_its_notes_below() {
        let mut sheet = Sheet::new("Speed", &["what", "how fast"]);
        sheet.add(vec!["tide".to_owned(), "2 km/h".to_owned()]);
        sheet.note("At springs.");
        assert_eq!(
            sheet.markdown(),
            "\n### Speed\n\n| what | how fast |\n|---|---|\n| tide | 2 km/h |\n\nAt springs.\n"
        );
    }
}
