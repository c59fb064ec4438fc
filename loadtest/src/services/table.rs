//! The table of what was shown: under which conditions, what was aimed at, what was seen.

use std::fmt::Write as _;

use crate::conditions::Conditions;
use crate::say;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    what: String,
    conditions: String,
    aim: String,
    seen: String,
    is_met: Option<bool>,
}

impl Line {
    /// A line, told at once to whoever watches. `is_met` is absent where nothing is aimed at.
    pub(crate) fn new(
        (what, conditions): (impl Into<String>, impl Into<String>),
        aim: impl Into<String>,
        seen: impl Into<String>,
        is_met: Option<bool>,
    ) -> Self {
        let line = Self {
            what: what.into(),
            conditions: conditions.into(),
            aim: aim.into(),
            seen: seen.into(),
            is_met,
        };
        say(&format!(
            "    {} [{}]: {} (aim: {}){}",
            line.what,
            line.conditions,
            line.seen,
            line.aim,
            match is_met {
                Some(false) => " MISSED",
                Some(true) | None => "",
            }
        ));
        line
    }
}

/// All lines, with what they were taken on.
#[derive(Debug)]
pub(crate) struct Table {
    conditions: Conditions,
    lines: Vec<Line>,
}

impl Table {
    pub(crate) const fn new(conditions: Conditions) -> Self {
        Self { conditions, lines: Vec::new() }
    }

    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// As Markdown. What is not met is said, not left to be computed.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.conditions.markdown();
        text.push_str("\n| what | conditions | seen | aim |\n|---|---|---|---|\n");
        for line in &self.lines {
            let missed = if line.is_met == Some(false) { " (**not met**)" } else { "" };
            writeln!(text, "| {} | {} | {}{missed} | {} |", line.what, line.conditions, line.seen, line.aim)
                .ok();
        }
        text
    }
}

/// A share as people read it, with two decimals, since what counts here is the last of a hundred.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::{Line, Table, percent};
    use crate::conditions::Conditions;

    #[test]
    fn what_is_not_met_is_said() {
        let mut table = Table::new(Conditions::default());
        table.add(Line::new(("window", "8 workers"), "≤ 100 %", percent(1.001), Some(false)));
        table.add(Line::new(("use", "8 workers"), "≥ 99 %", percent(0.994), Some(true)));
        let text = table.markdown();
        assert!(text.contains("| window | 8 workers | 100.10 % (**not met**) | ≤ 100 % |"), "{text}");
        assert!(text.contains("| use | 8 workers | 99.40 % | ≥ 99 % |"), "{text}");
    }
}
