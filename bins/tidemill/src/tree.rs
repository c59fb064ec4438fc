//! A run's steps as a tree: each below the need that it waited for longest, aligned in columns.

use std::collections::HashMap;

use tidemill_producer::views::{RunView, StepView};

use crate::moment::{duration, relative};
use crate::table::{Cell, Table, shortened};

/// Deeper steps are not indented further.
const MAX_INDENT: usize = 12;
/// Longest error shown in a row, in characters.
const MAX_NOTE: usize = 120;

/// The steps of a run as a table. With more than `most`, only those that have not succeeded are shown, at most `most`.
pub(crate) fn steps(run: &RunView, now_ms: u64, most: usize) -> (Table, usize) {
    let mut table = Table::new(&["STEP", "STATE", ">TRY", ">TIME", "WORKER", "NOTE"]);
    let all = run.steps.len() <= most;
    let mut hidden = 0;
    for (step, branch, other_needs) in ordered(&run.steps) {
        if !all && (step.state == "succeeded" || step.state == "pending" || table.len() >= most) {
            hidden += 1;
            continue;
        }
        table.row(row(step, if all { branch } else { String::new() }, &other_needs, now_ms));
    }
    (table, hidden)
}

fn row(step: &StepView, branch: String, other_needs: &[&str], now_ms: u64) -> Vec<Cell> {
    let name = step.id.clone().unwrap_or_else(|| format!("#{}", step.index));
    vec![
        Cell::new(branch + &name),
        Cell::state(&step.state),
        if step.attempt == 0 { Cell::default() } else { step.attempt.into() },
        Cell::new(time(step, now_ms)),
        Cell::new(step.worker.as_deref().unwrap_or_default()),
        Cell::new(notes(step, other_needs, now_ms)),
    ]
}

/// How long it ran, runs, or has waited.
fn time(step: &StepView, now_ms: u64) -> String {
    let from = step.started_at_ms.or(step.ready_at_ms);
    match (from, step.ended_at_ms) {
        (Some(from), Some(to)) => duration(to.saturating_sub(from)),
        (Some(from), None) => format!("{}…", duration(now_ms.saturating_sub(from))),
        (None, _) => String::new(),
    }
}

fn notes(step: &StepView, other_needs: &[&str], now_ms: u64) -> String {
    let mut notes = Vec::new();
    if let Some(items) = &step.items {
        notes.push(format!("{}/{} items", items.ended, items.total));
        if items.failed > 0 {
            notes.push(format!("{} failed", items.failed));
        }
    }
    if let Some(due) = step.due_at_ms {
        notes.push(format!("next {}", relative(due, now_ms)));
    }
    if let Some(line) = &step.line {
        notes.push(format!("place {} of {} for {}", line.place, line.length, line.tier));
    }
    if let Some(error) = &step.error {
        notes.push(shortened(&error_text(error.get()), MAX_NOTE));
    }
    if !other_needs.is_empty() {
        notes.push(format!("needs also {}", other_needs.join(", ")));
    }
    notes.join("; ")
}

/// `code: message` of a stored error.
pub(crate) fn error_text(json: &str) -> String {
    match serde_json::from_str::<tidemill_protocol::ErrorBody>(json) {
        Ok(error) => format!("{}: {}", error.code, error.message),
        Err(_) => json.to_owned(),
    }
}

/// Each step with its branch and the needs that the branch does not show.
fn ordered(steps: &[StepView]) -> Vec<(&StepView, String, Vec<&str>)> {
    let index: HashMap<&str, usize> =
        steps.iter().enumerate().filter_map(|(at, step)| Some((step.id.as_deref()?, at))).collect();
    let depths = depths(steps, &index);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let (mut parents, mut roots) = (vec![None; steps.len()], Vec::new());
    for (at, step) in steps.iter().enumerate() {
        let needs = step.needs.iter().filter_map(|need| index.get(need.as_str()).copied());
        match needs.filter(|need| depths[*need] < depths[at]).max_by_key(|need| (depths[*need], *need)) {
            Some(parent) => {
                children[parent].push(at);
                parents[at] = Some(parent);
            }
            None => roots.push(at),
        }
    }
    let mut rows = Vec::with_capacity(steps.len());
    // (step, what stands before its branch, its level, whether it is its parent's last)
    let mut stack: Vec<(usize, String, usize, bool)> =
        roots.iter().rev().map(|root| (*root, String::new(), 0, true)).collect();
    while let Some((at, prefix, level, last)) = stack.pop() {
        let flat = level == 0 || level > MAX_INDENT;
        let branch = if flat {
            prefix.clone()
        } else {
            format!("{prefix}{}", if last { "└─ " } else { "├─ " })
        };
        let below = if flat { prefix } else { format!("{prefix}{}", if last { "   " } else { "│  " }) };
        let shown = parents[at];
        let others = steps[at]
            .needs
            .iter()
            .filter(|need| index.get(need.as_str()).copied() != shown)
            .map(String::as_str);
        rows.push((&steps[at], branch, others.collect()));
        let last_child = children[at].last().copied();
        for child in children[at].iter().rev() {
            stack.push((*child, below.clone(), level + 1, Some(*child) == last_child));
        }
    }
    rows
}

/// How many needs stand above each step, along its longest way.
fn depths(steps: &[StepView], index: &HashMap<&str, usize>) -> Vec<usize> {
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let mut open: Vec<usize> = vec![0; steps.len()];
    for (at, step) in steps.iter().enumerate() {
        for need in step.needs.iter().filter_map(|need| index.get(need.as_str())) {
            dependents[*need].push(at);
            open[at] += 1;
        }
    }
    let mut depths = vec![0; steps.len()];
    let mut ready: Vec<usize> = (0..steps.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        for dependent in &dependents[at] {
            depths[*dependent] = depths[*dependent].max(depths[at] + 1);
            open[*dependent] -= 1;
            if open[*dependent] == 0 {
                ready.push(*dependent);
            }
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use tidemill_producer::views::StepView;

    use super::ordered;

    fn step(index: u32, id: &str, needs: &[&str]) -> StepView {
        StepView {
            index,
            id: Some(id.to_owned()),
            state: "pending".to_owned(),
            attempt: 0,
            queue: None,
            ready_at_ms: None,
            started_at_ms: None,
            ended_at_ms: None,
            due_at_ms: None,
            line: None,
            why: None,
            worker: None,
            error: None,
            items: None,
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        }
    }

    #[test]
    fn a_join_hangs_below_its_deepest_need_and_names_the_others() {
        let steps = [
            step(0, "order", &[]),
            step(1, "fraud", &["order"]),
            step(2, "summary", &["order"]),
            step(3, "hold", &["fraud", "summary"]),
            step(4, "alone", &[]),
        ];
        let lines: Vec<String> = ordered(&steps)
            .into_iter()
            .map(|(step, branch, others)| format!("{branch}{} {others:?}", step.id.as_deref().unwrap()))
            .collect();
        let expected = ["order []", "├─ fraud []", "└─ summary []", "   └─ hold [\"fraud\"]", "alone []"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_chain_of_ten_thousand_steps_neither_overflows_nor_runs_off_to_the_right() {
        let mut steps = vec![step(0, "s0", &[])];
        for at in 1..10_000_u32 {
            let need = format!("s{}", at - 1);
            steps.push(step(at, &format!("s{at}"), &[&need]));
        }
        let rows = ordered(&steps);
        assert_eq!(rows.len(), 10_000);
        assert!(rows.iter().all(|(_, branch, _)| branch.chars().count() <= 40));
    }
}
