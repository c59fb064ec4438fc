//! The table: rows with a median and the spread of the rounds, as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::bench::Mode;
use crate::conditions::Conditions;
use crate::samples::median_and_spread;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) label: &'static str,
    /// In which unit.
    pub(crate) unit: Unit,
    /// What is aimed at.
    pub(crate) aim: &'static str,
}

/// How a number is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things per second.
    PerSecond,
    /// A share of one, shown in per cent.
    Share,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// A plain number with decimals.
    Number,
    /// A whole number of things.
    Count,
    /// Bytes, shown as they are.
    Bytes,
    /// Bytes, shown in MiB.
    Mebibytes,
}

impl Unit {
    /// The value for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", grouped(value)),
            Self::Share if value < 0.01 => format!("{:.2} %", value * 100.0),
            Self::Share => format!("{:.1} %", value * 100.0),
            Self::Milliseconds if value >= 100.0 => format!("{} ms", grouped(value)),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Microseconds => format!("{value:.2} µs"),
            Self::Number => format!("{value:.4}"),
            Self::Count => grouped(value),
            Self::Bytes => format!("{} B", grouped(value)),
            Self::Mebibytes => format!("{:.1} MiB", value / (1024.0 * 1024.0)),
        }
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0.0 {
        shown.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// One number of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Where it belongs.
    pub(crate) row: &'static Row,
    /// The number, in the row's unit.
    pub(crate) value: f64,
}

/// All rounds.
#[derive(Debug)]
pub(crate) struct Report {
    conditions: Conditions,
    rows: Vec<(&'static Row, Vec<(Mode, f64)>)>,
}

/// The markers of the main table, of that of services and of those of workflows.
pub(crate) const MAIN: &str = "loadtest";
/// See [`MAIN`].
pub(crate) const SERVICES: &str = "services";
/// See [`MAIN`].
pub(crate) const WORKFLOWS: &str = "workflows";

impl Report {
    pub(crate) const fn new(conditions: Conditions) -> Self {
        Self { conditions, rows: Vec::new() }
    }

    /// Adds what one measure of one round gave.
    pub(crate) fn add(&mut self, mode: Mode, figures: Vec<Figure>) {
        for Figure { row, value } in figures {
            match self.rows.iter_mut().find(|(known, _)| *known == row) {
                Some((_, values)) => values.push((mode, value)),
                None => self.rows.push((row, vec![(mode, value)])),
            }
        }
    }

    /// Conditions and table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.conditions.markdown();
        let mut modes: Vec<Mode> =
            self.rows.iter().flat_map(|(_, values)| values.iter().map(|(mode, _)| *mode)).collect();
        modes.sort_unstable();
        modes.dedup();
        text.push_str("\n| measure |");
        for mode in &modes {
            write!(text, " persistence {} |", mode.name()).ok();
        }
        text.push_str(" aim |\n|---|");
        text.push_str(&"---|".repeat(modes.len() + 1));
        text.push('\n');
        for (row, values) in &self.rows {
            write!(text, "| {} |", row.label).ok();
            for mode in &modes {
                let of_mode: Vec<f64> =
                    values.iter().filter(|(of, _)| of == mode).map(|(_, value)| *value).collect();
                write!(text, " {} |", cell(row.unit, &of_mode)).ok();
            }
            writeln!(text, " {} |", row.aim).ok();
        }
        text
    }
}

fn cell(unit: Unit, values: &[f64]) -> String {
    match median_and_spread(values) {
        None => String::new(),
        Some((median, _, _)) if values.len() == 1 => unit.show(median),
        Some((median, least, most)) => {
            format!("**{}** ({} to {})", unit.show(median), unit.show(least), unit.show(most))
        }
    }
}

/// Puts the text between the markers of a Markdown file, or makes a file with both.
pub(crate) fn write(file: &Path, section: &str, text: &str) -> Result<()> {
    let (begin, end) = markers(section);
    let whole = match std::fs::read_to_string(file) {
        Ok(old) => {
            between_markers(&old, section, text).with_context(|| format!("changing {}", file.display()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{begin}\n{text}\n{end}\n"),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    std::fs::write(file, whole).with_context(|| format!("writing {}", file.display()))
}

fn markers(section: &str) -> (String, String) {
    (format!("<!-- {section}:begin -->"), format!("<!-- {section}:end -->"))
}

fn between_markers(old: &str, section: &str, text: &str) -> Result<String> {
    let (begin, end) = markers(section);
    let Some((before, rest)) = old.split_once(&begin) else {
        bail!("it has no line {begin}; add it and a line {end} where the table belongs");
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("it has no line {end} after {begin}; add it where the table ends");
    };
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{Figure, MAIN, Mode, Report, Row, SERVICES, Unit, between_markers};
    use crate::conditions::Conditions;

    static DRAIN: Row = Row { label: "drain", unit: Unit::PerSecond, aim: "more" };
    static SHARE: Row = Row { label: "share", unit: Unit::Share, aim: "" };

    #[test]
    fn a_row_shows_the_median_of_its_rounds_and_their_spread_per_mode() {
        let mut report = Report::new(Conditions::default());
        for value in [1_234_567.0, 20.0, 1_000.0] {
            report.add(Mode::Off, vec![Figure { row: &DRAIN, value }]);
        }
        report.add(Mode::Aof, vec![Figure { row: &SHARE, value: 0.756 }]);
        let text = report.markdown();
        assert!(text.contains("| drain | **1,000/s** (20/s to 1,234,567/s) |  | more |"), "{text}");
        assert!(text.contains("| share |  | 75.6 % |  |"), "{text}");
        assert_eq!(Unit::Share.show(0.000_42), "0.04 %", "what an idle program needs is not nothing");
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let old = "# Title\n<!-- services:begin -->\nold\n<!-- services:end -->\nafter\n";
        let new = between_markers(old, SERVICES, "new").unwrap();
        assert_eq!(new, "# Title\n<!-- services:begin -->\nnew\n<!-- services:end -->\nafter\n");
        let error = between_markers(old, MAIN, "new").unwrap_err().to_string();
        assert!(error.contains("<!-- loadtest:begin -->"), "{error}");
    }
}
