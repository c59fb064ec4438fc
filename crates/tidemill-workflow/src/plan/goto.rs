//! `on_error: { goto }`: the step that is run where another one failed, in place of those that need that one.

use std::collections::HashMap;

use super::compile::{Compiler, Entry, List, name};
use super::graph::Graph;
use super::switch::Choices;
use crate::definition::{Join, OnError};
use crate::problem::ProblemCode;

/// Which failures lead where.
#[derive(Debug, Default)]
pub(super) struct Gotos {
    /// By the step that is led to, the steps that lead there.
    to: HashMap<u32, Vec<u32>>,
    /// By the step that may fail, the step that it leads to.
    from: HashMap<u32, u32>,
}

impl Gotos {
    /// The steps whose failure leads here.
    pub(super) fn to(&self, step: u32) -> &[u32] {
        self.to.get(&step).map(Vec::as_slice).unwrap_or_default()
    }

    /// The needs of a step whose failure leads elsewhere, and not to it: where one of them failed, it is not run. A step that also
    /// lies behind where they lead is run on from there.
    pub(super) fn spared(&self, graph: &Graph, step: u32) -> Vec<u32> {
        let needs = graph.needs_of(step).iter().copied();
        let elsewhere = |need: &u32| self.from.get(need).is_some_and(|to| *to != step);
        let mut found: Vec<u32> = needs.filter(elsewhere).collect();
        found.retain(|need| self.from.get(need).is_none_or(|to| !graph.waits_for(step, *to)));
        found
    }
}

impl Compiler<'_> {
    /// Finds where failures lead, and makes what they lead to need the step that may fail.
    pub(super) fn gotos(&mut self, graph: &mut Graph, list: &List<'_>, choices: &Choices) -> Gotos {
        let mut gotos = Gotos::default();
        for (at, entry) in (0_u32..).zip(&list.steps) {
            let OnError::Goto(id) = &entry.step.on_error else { continue };
            if let Some(to) = self.led_to(graph, (at, entry), id) {
                if choices.of(to).is_some() {
                    let message =
                        format!("step `{id}` is chosen by a switch already; go to a step of its own");
                    self.problem(&path(entry), ProblemCode::DuplicateChoice, message);
                    continue;
                }
                gotos.from.insert(at, to);
                gotos.to.entry(to).or_default().push(at);
                if !graph.needs_of(to).contains(&at) {
                    graph.add(to, at);
                }
            }
        }
        for to in gotos.to.keys() {
            let Some(entry) = list.steps.get(*to as usize) else { continue };
            if entry.step.join != Join::All {
                let message = format!(
                    "`{}` is gone to where another step fails and so waits for all of its needs; put the join into a \
                     step before or behind it",
                    entry.step.id
                );
                self.problem(&entry.member("join"), ProblemCode::BadValue, message);
            }
        }
        gotos
    }

    fn led_to(&mut self, graph: &Graph, (at, entry): (u32, &Entry<'_>), id: &str) -> Option<u32> {
        let Some(to) = graph.main_index(id) else {
            self.problem(&path(entry), ProblemCode::UnknownStepReference, graph.unknown(id));
            return None;
        };
        if to == at || graph.waits_so_far(at, to) {
            let message =
                format!("step `{id}` comes before this one; to run something again, use `repeat` or `retry`");
            self.problem(&path(entry), ProblemCode::Cycle, message);
            return None;
        }
        Some(to)
    }
}

fn path(entry: &Entry<'_>) -> Vec<crate::source::Segment> {
    let mut path = entry.member("on_error");
    path.push(name("goto"));
    path
}
