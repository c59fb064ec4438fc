//! Aligned columns for people.

/// How a cell is shown where colours are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
    Busy,
    Waiting,
}

impl Style {
    /// The style of a state's word.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "succeeded" | "alive" => Self::Good,
            "failed" | "timed_out" | "compensation_failed" | "silent" => Self::Bad,
            "running" => Self::Busy,
            "parked" | "retrying" | "deferred" | "waiting" => Self::Waiting,
            "skipped" | "cancelled" | "pending" | "paused" => Self::Dim,
            _ => Self::Plain,
        }
    }

    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "36",
            Self::Waiting => "33",
        };
        if color && !code.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// One cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), style: Style::Plain }
    }

    pub(crate) const fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// A state's word in its colour.
    pub(crate) fn state(state: &str) -> Self {
        Self::new(state).style(Style::of_state(state))
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::new(value.to_string())
    }
}

/// What stands in Redis may hold anything: no value forges a line or drives the terminal.
pub(crate) fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// A text cut to so many characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Rows of cells below a head.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table; columns whose name begins with `>` are aligned to the right.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line ended.
    pub(crate) fn render(&self, color: bool) -> String {
        let names = self.head.iter().map(|name| name.trim_start_matches('>'));
        let head: Vec<Cell> = names.map(|name| Cell::new(name).style(Style::Bold)).collect();
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.text.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let blanks = " ".repeat(width - cell.text.chars().count());
                let right = self.head.get(at).is_some_and(|name| name.starts_with('>'));
                let painted = cell.style.paint(&cell.text, color);
                let gap = if at == 0 { "" } else { "  " };
                let (before, after) = if right { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
                line.extend([gap, before, &painted, after]);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Style, Table, shortened};

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::new(&["QUEUE", ">READY", "OLDEST"]);
        table.row(vec![Cell::new("default"), 1200.into(), Cell::new("4 s")]);
        table.row(vec![Cell::new("low"), 3.into(), Cell::default()]);
        assert_eq!(table.render(false), "QUEUE    READY  OLDEST\ndefault   1200  4 s\nlow          3\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["STATE", "ID"]);
        table.row(vec![Cell::state("failed"), Cell::new("a")]);
        let plain =
            table.render(true).replace("\u{1b}[31m", "").replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, table.render(false));
        assert_eq!(Style::Bad.paint("x", true), "\u{1b}[31mx\u{1b}[0m");
    }

    #[test]
    fn a_value_cannot_drive_the_terminal() {
        let mut table = Table::new(&["A"]);
        table.row(vec![Cell::new("x\u{1b}[2Jy\nz")]);
        assert_eq!(table.render(false), "A\nx\\u{1b}[2Jy\\nz\n");
    }

    #[test]
    fn long_texts_are_cut_by_characters() {
        assert_eq!((shortened("äöü", 3), shortened("äöüß", 3)), ("äöü".to_owned(), "äö…".to_owned()));
    }
}
