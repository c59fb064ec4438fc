//! Steps with a `switch`: what they choose becomes a need and a condition of the steps that their cases name.

use std::collections::HashMap;

use serde_json::Value;

use super::ChosenBy;
use super::compile::{Compiler, Entry, List};
use super::graph::Graph;
use super::spot::Spot;
use crate::definition::{ActionDefinition, Join, Pick, SwitchDefinition};
use crate::problem::ProblemCode;
use crate::source::Segment;
use crate::template::{Case, Template, compile_condition};

/// Which step is chosen by which switch.
#[derive(Debug, Default)]
pub(super) struct Choices(HashMap<u32, ChosenBy>);

impl Choices {
    pub(super) fn of(&self, step: u32) -> Option<ChosenBy> {
        self.0.get(&step).copied()
    }
}

fn switches<'l>(list: &'l List<'_>) -> impl Iterator<Item = ((u32, &'l Entry<'l>), &'l SwitchDefinition)> {
    (0_u32..).zip(&list.steps).filter_map(|(at, entry)| match &entry.step.action {
        ActionDefinition::Switch(switch) => Some(((at, entry), switch)),
        _ => None,
    })
}

/// The lists of ids of a switch, each with its case and its path below the switch.
fn lists(switch: &SwitchDefinition) -> impl Iterator<Item = (Option<u32>, [Segment; 2], &[String])> {
    let path = |at: usize, member: &str| [Segment::At(at), Segment::Name(member.to_owned())];
    let cases = (0_u32..).zip(switch.cases.iter().enumerate());
    let cases = cases.map(move |(case, (at, entry))| (Some(case), path(at, "then"), entry.then.as_slice()));
    let default = switch.default.iter();
    cases.chain(default.map(move |ids| (None, path(switch.cases.len(), "default"), ids.as_slice())))
}

impl Compiler<'_> {
    /// Finds what every switch names, and makes it need the switch.
    pub(super) fn choices(&mut self, graph: &mut Graph, list: &List<'_>) -> Choices {
        let mut choices = Choices::default();
        for ((at, entry), switch) in switches(list) {
            for (case, below, ids) in lists(switch) {
                for (number, id) in ids.iter().enumerate() {
                    let mut path = entry.member("switch");
                    path.extend(below.iter().cloned());
                    path.push(Segment::At(number));
                    self.choice(graph, &mut choices, (ChosenBy { switch: at, case }, id), &path);
                }
            }
        }
        for (at, entry) in (0_u32..).zip(&list.steps) {
            match choices.of(at) {
                Some(by) if entry.step.join != Join::All => self.chosen_join(graph, entry, by),
                _ => self.excluding_join(graph, &choices, list, (at, entry)),
            }
        }
        choices
    }

    fn choice(
        &mut self,
        graph: &mut Graph,
        choices: &mut Choices,
        (by, id): (ChosenBy, &str),
        path: &[Segment],
    ) {
        let Some(step) = graph.main_index(id) else {
            return self.problem(path, ProblemCode::UnknownStepReference, graph.unknown(id));
        };
        if let Some(other) = choices.of(step) {
            let other = graph.id(other.switch);
            let message = format!(
                "step `{id}` is chosen by the switch `{other}` already; name it once, or let a step that \
                 needs what the cases choose do what they share"
            );
            return self.problem(path, ProblemCode::DuplicateChoice, message);
        }
        choices.0.insert(step, by);
        if !graph.needs_of(step).contains(&by.switch) {
            graph.add(step, by.switch);
        }
    }

    /// The switch is one need among those that a join counts: it would count as a success of its own.
    fn chosen_join(&mut self, graph: &Graph, entry: &Entry<'_>, by: ChosenBy) {
        let message = format!(
            "`{}` is chosen by the switch `{}` and so waits for all of its needs; put the join into a step before \
             or behind it",
            entry.step.id,
            graph.id(by.switch)
        );
        self.problem(&entry.member("join"), ProblemCode::BadValue, message);
    }

    /// A join that wants more successes than a switch lets through.
    fn excluding_join(
        &mut self,
        graph: &Graph,
        choices: &Choices,
        list: &List<'_>,
        (at, entry): (u32, &Entry<'_>),
    ) {
        let Join::NOf(wanted) = entry.step.join else { return };
        let needs = graph.needs_of(at);
        let picks_first = |switch: u32| {
            let entry = list.steps.get(switch as usize);
            entry.is_some_and(|entry| match &entry.step.action {
                ActionDefinition::Switch(switch) => switch.pick == Pick::First,
                _ => false,
            })
        };
        let mut free = 0;
        let mut by_switch: HashMap<u32, HashMap<Option<u32>, usize>> = HashMap::new();
        for need in needs {
            match choices.of(*need).filter(|by| picks_first(by.switch)) {
                Some(by) => *by_switch.entry(by.switch).or_default().entry(by.case).or_default() += 1,
                None => free += 1,
            }
        }
        let chosen: usize = by_switch.values().filter_map(|cases| cases.values().max()).sum();
        if free + chosen < wanted as usize && wanted as usize <= needs.len() {
            let message = format!(
                "waits for {wanted} of needs of which a switch lets at most {} run; it would never run",
                free + chosen
            );
            self.problem(&entry.member("join"), ProblemCode::UnreachableStep, message);
        }
    }

    /// The template of what a switch chooses.
    pub(super) fn switch(
        &mut self,
        entry: &Entry<'_>,
        switch: &SwitchDefinition,
        spot: &Spot<'_>,
    ) -> Template {
        let mut cases = Vec::with_capacity(switch.cases.len());
        let mut always: Option<usize> = None;
        for (number, case) in switch.cases.iter().enumerate() {
            let mut path = entry.member("switch");
            path.push(Segment::At(number));
            self.behind(always, &path);
            path.push(Segment::Name("when".to_owned()));
            let mut complaints = Vec::new();
            let when = compile_condition(&case.when, spot, &mut complaints);
            self.complaints(&path, complaints);
            cases.extend(when.map(|when| Case::new(when, &case.then)));
            if switch.pick == Pick::First && case.when == Value::Bool(true) {
                always.get_or_insert(number);
            }
        }
        if switch.default.is_some() {
            let mut path = entry.member("switch");
            path.push(Segment::At(switch.cases.len()));
            self.behind(always, &path);
        }
        Template::choosing(cases, switch.default.as_deref().unwrap_or_default(), switch.pick == Pick::All)
    }

    /// An entry of a switch behind a case that always holds.
    fn behind(&mut self, always: Option<usize>, path: &[Segment]) {
        if let Some(always) = always {
            let message = format!("is never tried: case {always} (from 0) holds always");
            self.problem(path, ProblemCode::UnreachableStep, message);
        }
    }
}
