//! What a command found, on standard output: for people, or as JSON.
//!
//! With `--json`, a command about one thing writes one document, a command that lists writes one document per line.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::table::{Style, Table};

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a command's findings go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    color: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match color {
            Color::Auto => terminal && !unwanted,
            Color::Always => true,
            Color::Never => false,
        };
        Self { json, color: color && !json, terminal }
    }

    /// Whether JSON is wanted.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person looks at a terminal.
    pub(crate) const fn is_live(self) -> bool {
        self.terminal && !self.json
    }

    /// Whether colours are used.
    pub(crate) const fn has_color(self) -> bool {
        self.color
    }

    /// Writes a list's table for people, or a sentence where it is empty; as JSON its rows were documents.
    pub(crate) fn listing(self, table: &Table, empty: &str) {
        match (self.json, table.is_empty()) {
            (true, _) => {}
            (false, true) => self.line(empty),
            (false, false) => self.table(table),
        }
    }

    /// How many characters a line of the terminal has; 100 where there is none.
    #[expect(clippy::unused_self, reason = "where findings go is the output's own affair")]
    pub(crate) fn columns(self) -> usize {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0);
        size.map_or(100, |size| usize::from(size.ws_col))
    }

    /// Writes text as it stands. A reader that has gone away (`| head`) is no failure.
    #[expect(clippy::unused_self, reason = "where findings go is the output's own affair")]
    pub(crate) fn text(self, text: &str) {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }

    /// Draws a picture in the place of the one before, which had so many lines; gives its own. Long lines are cut by the terminal, and
    /// what is higher than the screen at its end, for the place of what has scrolled away cannot be found again.
    pub(crate) fn redraw(self, picture: &str, before: usize) -> usize {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0);
        let rows = size.map_or(24, |size| usize::from(size.ws_row));
        let most = rows.saturating_sub(1).max(2);
        let total = picture.lines().count();
        let (back, mut lines) = (if before == 0 { String::new() } else { format!("\u{1b}[{before}A") }, 0);
        let mut text = format!("{back}\u{1b}[J\u{1b}[?7l");
        for line in picture.lines().take(most) {
            lines += 1;
            text.push_str(if lines == most && total > most { "…" } else { line });
            text.push('\n');
        }
        text.push_str("\u{1b}[?7h");
        self.text(&text);
        lines
    }

    /// Writes one line.
    pub(crate) fn line(self, line: impl AsRef<str>) {
        self.text(&format!("{}\n", line.as_ref()));
    }

    /// Writes one JSON document in one line.
    pub(crate) fn document<T: Serialize>(self, document: &T) {
        match serde_json::to_string(document) {
            Ok(text) => self.line(text),
            Err(error) => Self::note(&format!("this cannot be shown as JSON: {error}")),
        }
    }

    /// Writes `document`, or `line` for people.
    pub(crate) fn told<T: Serialize>(self, document: &T, line: impl AsRef<str>) {
        if self.json { self.document(document) } else { self.line(line) }
    }

    /// Writes a table for people.
    pub(crate) fn table(self, table: &Table) {
        self.text(&table.render(self.color));
    }

    /// A piece of text in a style.
    pub(crate) fn styled(self, text: &str, style: Style) -> String {
        style.paint(text, self.color)
    }

    /// A remark beside the findings, on standard error.
    pub(crate) fn note(text: &str) {
        writeln!(io::stderr().lock(), "{text}").ok();
    }
}
