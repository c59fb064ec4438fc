//! A plan as a picture: Mermaid and DOT text.

use super::{Action, Child, Plan, PlanStep};
use crate::definition::Join;
use crate::orchestrate::ChildTarget;

impl Plan {
    /// A Mermaid flowchart.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for (at, step) in self.steps.iter().enumerate() {
            let (open, close) = if matches!(step.action, Action::Decide) { ("{", "}") } else { ("[", "]") };
            line(&mut text, format_args!("    n{at}{open}\"{}\"{close}", label(step, "<br/>")));
        }
        for (at, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                line(&mut text, format_args!("    n{need} -->{} n{at}", edge_label(step, *need, ("|", "|"))));
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
            let shape = if matches!(step.action, Action::Decide) { ", shape=diamond" } else { "" };
            line(&mut text, format_args!("    n{at} [label=\"{}\"{shape}];", label(step, "\\n")));
        }
        for (at, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                line(
                    &mut text,
                    format_args!("    n{need} -> n{at}{};", edge_label(step, *need, (" [label=\"", "\"]"))),
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
    let action = match &step.action {
        Action::Tool { tool } => &**tool,
        Action::Child(Child { target: ChildTarget::Workflow(workflow), .. }) => workflow,
        other => other.kind(),
    };
    let mut label = format!("{}{line_break}{action}", step.id);
    if step.for_each.is_some() {
        label.push_str(" (for each)");
    }
    if step.when.as_ref().is_some_and(|when| when.source().is_some()) {
        label.push_str(" (if)");
    }
    label
}

/// A switch counts its cases from 1, as people do.
fn edge_label(step: &PlanStep, need: u32, (open, close): (&str, &str)) -> String {
    if let Some(by) = step.chosen_by.filter(|by| by.switch == need) {
        return match by.case {
            Some(case) => format!("{open}case {}{close}", case + 1),
            None => format!("{open}default{close}"),
        };
    }
    match step.join {
        Join::All => String::new(),
        Join::Any => format!("{open}any{close}"),
        Join::NOf(n) => format!("{open}{n} of {}{close}", step.needs.len()),
    }
}
