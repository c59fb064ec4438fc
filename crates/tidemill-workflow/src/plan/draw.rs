//! A plan as a picture: Mermaid and DOT text.

use super::{Action, Branch, Child, Plan, PlanStep};
use crate::definition::Join;
use crate::orchestrate::ChildTarget;

impl Plan {
    /// A Mermaid flowchart. Blocks are drawn around their steps.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut drawing = Drawing { top: self, text: String::from("flowchart TD\n") };
        drawing.mermaid(self, "n", 1);
        drawing.text
    }

    /// A DOT graph. Blocks are boxes of their own beside the step that runs them.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut drawing = Drawing { top: self, text: String::new() };
        drawing.line(0, format_args!("digraph \"{} v{}\" {{", self.name, self.version));
        drawing.line(1, format_args!("rankdir=LR; node [shape=box];"));
        drawing.dot(self, "n", 1);
        drawing.line(0, format_args!("}}"));
        drawing.text
    }

    /// Edges that are no needs: to what undoes a step.
    fn undone(&self) -> impl Iterator<Item = (usize, u32)> {
        self.steps.iter().enumerate().filter_map(|(at, step)| Some((at, step.undo?)))
    }
}

struct Drawing<'p> {
    top: &'p Plan,
    text: String,
}

impl<'p> Drawing<'p> {
    fn line(&mut self, depth: usize, line: std::fmt::Arguments<'_>) {
        self.text.push_str(&"    ".repeat(depth));
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    /// The blocks that a step runs, each with its place among them. What an approval has done again is not drawn.
    fn blocks(&self, step: &PlanStep) -> Vec<(usize, &'p Plan)> {
        let children: Vec<&Child> = match &step.action {
            Action::Child(child) => vec![child],
            Action::Race(branches) => branches.iter().map(|branch| &branch.child).collect(),
            _ => Vec::new(),
        };
        let top = self.top;
        let block = |child: &Child| match &child.target {
            ChildTarget::Block(path) => top.block(path).map(AsRef::as_ref),
            ChildTarget::Workflow(_) => None,
        };
        let blocks = children.into_iter().enumerate();
        blocks.filter_map(|(at, child)| Some((at, block(child)?))).collect()
    }

    fn mermaid(&mut self, plan: &Plan, node: &str, depth: usize) {
        for (at, step) in plan.steps.iter().enumerate() {
            let label = label(step, "<br/>");
            let blocks = self.blocks(step);
            if blocks.is_empty() {
                let (open, close) = brackets(&step.action);
                self.line(depth, format_args!("{node}{at}{open}\"{label}\"{close}"));
                continue;
            }
            self.line(depth, format_args!("subgraph {node}{at}[\"{label}\"]"));
            for (number, block) in blocks {
                self.mermaid(block, &format!("{node}{at}_{number}_"), depth + 1);
            }
            for (number, workflow) in raced_workflows(&step.action) {
                self.line(depth + 1, format_args!("{node}{at}_{number}[[\"{workflow}\"]]"));
            }
            self.line(depth, format_args!("end"));
        }
        for (at, step) in plan.steps.iter().enumerate() {
            for need in &step.needs {
                let label = edge_label(step, *need, ("|", "|"));
                self.line(depth, format_args!("{node}{need} -->{label} {node}{at}"));
            }
        }
        for (at, undo) in plan.undone() {
            self.line(depth, format_args!("{node}{at} -.->|undo| {node}{undo}"));
        }
    }

    fn dot(&mut self, plan: &Plan, node: &str, depth: usize) {
        for (at, step) in plan.steps.iter().enumerate() {
            let (label, shape) = (label(step, "\\n"), shape(&step.action));
            self.line(depth, format_args!("{node}{at} [label=\"{label}\"{shape}];"));
            for (number, block) in self.blocks(step) {
                let inside = format!("{node}{at}_{number}_");
                let path = block.block.as_deref().unwrap_or_default();
                self.line(depth, format_args!("subgraph \"cluster_{path}\" {{"));
                self.line(depth + 1, format_args!("label=\"{path}\";"));
                self.dot(block, &inside, depth + 1);
                self.line(depth, format_args!("}}"));
                for root in block.roots() {
                    self.line(depth, format_args!("{node}{at} -> {inside}{root} [style=dotted];"));
                }
            }
        }
        for (at, step) in plan.steps.iter().enumerate() {
            for need in &step.needs {
                let label = edge_label(step, *need, (" [label=\"", "\"]"));
                self.line(depth, format_args!("{node}{need} -> {node}{at}{label};"));
            }
        }
        for (at, undo) in plan.undone() {
            self.line(depth, format_args!("{node}{at} -> {node}{undo} [label=\"undo\", style=dashed];"));
        }
    }
}

fn raced_workflows(action: &Action) -> impl Iterator<Item = (usize, &str)> {
    let branches: &[Branch] = match action {
        Action::Race(branches) => branches,
        _ => &[],
    };
    branches.iter().enumerate().filter_map(|(at, branch)| match &branch.child.target {
        ChildTarget::Workflow(workflow) => Some((at, workflow.as_str())),
        ChildTarget::Block(_) => None,
    })
}

const fn brackets(action: &Action) -> (&'static str, &'static str) {
    match action {
        Action::Decide => ("{", "}"),
        Action::Wait(_) => ("([", "])"),
        Action::Approval(_) => ("[/", "/]"),
        Action::Child(_) => ("[[", "]]"),
        Action::Tool { .. } | Action::Race(_) | Action::Program(_) => ("[", "]"),
    }
}

const fn shape(action: &Action) -> &'static str {
    match action {
        Action::Decide => ", shape=diamond",
        Action::Wait(_) => ", style=rounded",
        Action::Approval(_) => ", shape=parallelogram",
        Action::Child(_) | Action::Race(_) => ", shape=component",
        Action::Tool { .. } | Action::Program(_) => "",
    }
}

/// Ids and names of tools and workflows are of letters, digits and `.-_/@!`: nothing that needs an escape.
fn label(step: &PlanStep, line_break: &str) -> String {
    let action = match &step.action {
        Action::Tool { tool } => &**tool,
        Action::Child(Child { target: ChildTarget::Workflow(workflow), .. }) => workflow,
        other => other.kind(),
    };
    let mut label = format!("{}{line_break}{action}", step.id);
    let notes = [
        (step.for_each.is_some(), " (for each)"),
        (step.repeat.is_some(), " (repeat)"),
        (step.then_wait.is_some(), " (wait)"),
        (step.when.as_ref().is_some_and(|when| when.source().is_some()), " (if)"),
    ];
    notes.into_iter().filter(|(holds, _)| *holds).for_each(|(_, note)| label.push_str(note));
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
    if step.rescues.contains(&need) {
        return format!("{open}failed{close}");
    }
    match step.join {
        Join::All => String::new(),
        Join::Any => format!("{open}any{close}"),
        Join::NOf(n) => format!("{open}{n} of {}{close}", step.needs.len()),
    }
}
