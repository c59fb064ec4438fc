//! A plan as a picture: Mermaid and DOT text.

use super::{Action, Plan, PlanStep};
use crate::definition::Join;

impl Plan {
    /// A Mermaid flowchart.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for (at, step) in self.steps.iter().enumerate() {
            line(&mut text, format_args!("    n{at}[\"{}\"]", label(step, "<br/>")));
        }
        for (at, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                line(&mut text, format_args!("    n{need} -->{} n{at}", edge_label(step, "|", "|")));
            }
        }
        text
    }

    /// A DOT graph.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut text = String::new();
        line(&mut text, format_args!("digraph \"{} v{}\" {{", self.name, self.version));
        line(&mut text, format_args!("    rankdir=LR; node [shape=box];"));
        for (at, step) in self.steps.iter().enumerate() {
            line(&mut text, format_args!("    n{at} [label=\"{}\"];", label(step, "\\n")));
        }
        for (at, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                line(
                    &mut text,
                    format_args!("    n{need} -> n{at}{};", edge_label(step, " [label=\"", "\"]")),
                );
            }
        }
        text.push_str("}\n");
        text
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
    text.push('\n');
}

/// Ids and tool names are of letters, digits and `.-_/@`: nothing that needs an escape.
fn label(step: &PlanStep, line_break: &str) -> String {
    let Action::Tool { tool } = &step.action;
    let mut label = format!("{}{line_break}{tool}", step.id);
    if step.for_each.is_some() {
        label.push_str(" (for each)");
    }
    if step.when.is_some() {
        label.push_str(" (if)");
    }
    label
}

fn edge_label(step: &PlanStep, open: &str, close: &str) -> String {
    match step.join {
        Join::All => String::new(),
        Join::Any => format!("{open}any{close}"),
        Join::NOf(n) => format!("{open}{n} of {}{close}", step.needs.len()),
    }
}
