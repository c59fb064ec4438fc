//! A list of steps: those of the workflow, or of a block of it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::{Compiler, QUEUE, name};
use crate::definition::{ActionDefinition, Definition, Join, MAX_STEPS, StepDefinition};
use crate::plan::goto::Gotos;
use crate::plan::graph::Graph;
use crate::plan::spot::Spot;
use crate::plan::switch::Choices;
use crate::plan::{Finish, Plan, PlanStep};
use crate::problem::ProblemCode;
use crate::source::Segment;
use crate::template::References;

/// A list of steps, with where it stands in the text.
#[derive(Default)]
pub(in crate::plan) struct List<'d> {
    /// The steps of the run itself.
    pub(in crate::plan) steps: Vec<Entry<'d>>,
    /// Those at its end.
    pub(super) finally: Vec<Entry<'d>>,
    pub(super) output: Option<(&'d Value, Vec<Segment>)>,
    /// Of a block: its path in the workflow.
    pub(super) block: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) timeout_ms: Option<u64>,
}

/// A step, with where it stands in the text.
#[derive(Clone)]
pub(in crate::plan) struct Entry<'d> {
    pub(in crate::plan) step: Cow<'d, StepDefinition>,
    pub(in crate::plan) path: Vec<Segment>,
}

/// What is known of a list when its steps are compiled.
pub(in crate::plan) struct Level<'l> {
    pub(in crate::plan) list: &'l List<'l>,
    pub(in crate::plan) graph: &'l Graph,
    pub(super) choices: &'l Choices,
    pub(super) gotos: &'l Gotos,
    /// Steps that approvals may have run again.
    pub(super) revised: &'l HashSet<u32>,
    /// The place of the step whose block this is.
    pub(super) around: Option<&'l Spot<'l>>,
}

impl Entry<'_> {
    /// The path of a member of the step.
    pub(in crate::plan) fn member(&self, member: &str) -> Vec<Segment> {
        self.path.iter().cloned().chain([name(member)]).collect()
    }
}

/// Steps as entries, below this path.
pub(super) fn entries<'d>(steps: &'d [StepDefinition], path: &[Segment]) -> Vec<Entry<'d>> {
    let entry = |(at, step): (usize, &'d StepDefinition)| Entry {
        step: Cow::Borrowed(step),
        path: path.iter().cloned().chain([Segment::At(at)]).collect(),
    };
    steps.iter().enumerate().map(entry).collect()
}

impl<'d> List<'d> {
    pub(super) fn of_workflow(definition: &'d Definition) -> Self {
        Self {
            steps: entries(&definition.steps, &[name("steps")]),
            finally: entries(&definition.finally, &[name("finally")]),
            output: definition.output.as_ref().map(|output| (output, vec![name("output")])),
            queue: Some(definition.queue.clone().unwrap_or_else(|| QUEUE.to_owned())),
            ..Self::default()
        }
    }

    /// The path of a block of a step of the list.
    pub(super) fn path_of(&self, block: &str) -> String {
        self.block.as_ref().map_or_else(|| block.to_owned(), |own| format!("{own}/{block}"))
    }

    /// The steps that undo others, each with the index of the other.
    fn undo(&self) -> Vec<(u32, Entry<'static>)> {
        let steps = (0_u32..).zip(&self.steps);
        steps
            .filter_map(|(at, entry)| {
                let undo = entry.step.compensate.as_ref()?.step(format!("{}!undo", entry.step.id));
                Some((at, Entry { step: Cow::Owned(undo), path: entry.member("compensate") }))
            })
            .collect()
    }
}

impl Compiler<'_> {
    /// Compiles a list, with its blocks.
    pub(super) fn list(&mut self, list: &List<'_>, around: Option<&Spot<'_>>) -> Plan {
        let undo = list.undo();
        let main = u32::try_from(list.steps.len()).unwrap_or(u32::MAX);
        self.steps += list.steps.len();
        if self.steps > 2 * MAX_STEPS {
            let message = format!(
                "has more than {} steps, with its blocks and what approvals run again",
                2 * MAX_STEPS
            );
            self.problem(&[name("steps")], ProblemCode::TooManySteps, message);
            return self.assembled(list, Graph::default(), Finish::Sink(0));
        }
        let extra = undo.iter().map(|(_, entry)| entry).chain(&list.finally);
        let ids = list.steps.iter().chain(extra).map(|entry| Arc::from(entry.step.id.as_str())).collect();
        let mut graph = Graph::new(ids, main);
        let (choices, gotos) = self.edges(&mut graph, list);
        let revised = revised(&graph, list);
        let level =
            Level { list, graph: &graph, choices: &choices, gotos: &gotos, revised: &revised, around };
        let mut blocks = HashMap::new();
        let mut steps = Vec::with_capacity(graph.ids.len());
        for (at, entry) in (0_u32..).zip(&list.steps) {
            steps.push(self.step(&level, (at, entry), &mut blocks));
        }
        for (number, (undone, entry)) in (main..).zip(&undo) {
            steps.push(self.call(entry, graph.id(number), &Spot::of_undo(&graph, *undone, around)));
            if let Some(step) = steps.get_mut(*undone as usize) {
                step.undo = Some(number);
            }
        }
        let first = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        for (number, entry) in (first..).zip(&list.finally) {
            steps.push(self.call(entry, graph.id(number), &Spot::of_finally(&graph, number)));
        }
        let finish = self.finish(&graph, list, around);
        let finally = (first..).take(list.finally.len()).collect();
        let mut plan = self.assembled(list, graph, finish);
        plan.waits = steps.iter().any(PlanStep::is_orchestrated);
        (plan.steps, plan.finally, plan.blocks) = (steps, finally, blocks);
        plan
    }

    /// A plan without its steps.
    fn assembled(&self, list: &List<'_>, graph: Graph, finish: Finish) -> Plan {
        let main = graph.main;
        let ends = |edges: &[Vec<u32>]| {
            let edges = (0..main).zip(edges);
            edges.filter(|(_, edges)| edges.is_empty()).map(|(at, _)| at).collect::<Vec<u32>>()
        };
        Plan {
            name: self.whole.name.to_owned(),
            version: self.whole.version,
            queue: list.queue.clone().unwrap_or_default(),
            timeout_ms: list.timeout_ms,
            failure: self.whole.failure,
            retention_ms: self.whole.retention_ms,
            steps: Vec::new(),
            finish,
            block: list.block.clone(),
            labels: Vec::new(),
            group: None,
            budget: None,
            mode: None,
            finally: Vec::new(),
            main,
            blocks: HashMap::new(),
            input_schema: None,
            waits: false,
            roots: ends(&graph.needs),
            sinks: ends(&graph.dependents),
            dependents: graph.dependents,
            index: graph.index,
            in_order: OnceLock::new(),
        }
    }

    /// Who needs whom, by `needs`, by switches and by failures.
    fn edges(&mut self, graph: &mut Graph, list: &List<'_>) -> (Choices, Gotos) {
        for (at, entry) in (0_u32..).zip(&list.steps) {
            for (number, need) in entry.step.needs.iter().enumerate() {
                match graph.main_index(need) {
                    Some(need) => graph.add(at, need),
                    None => {
                        let mut path = entry.member("needs");
                        path.push(Segment::At(number));
                        self.problem(&path, ProblemCode::UnknownNeed, graph.unknown(need));
                    }
                }
            }
            self.join(entry);
        }
        let choices = self.choices(graph, list);
        let gotos = self.gotos(graph, list, &choices);
        for cycle in graph.cycles() {
            self.cycle(graph, list, &cycle);
        }
        (choices, gotos)
    }

    /// A join that its needs can never meet.
    fn join(&mut self, entry: &Entry<'_>) {
        let wanted = match entry.step.join {
            Join::All => 0,
            Join::Any => 1,
            Join::NOf(n) => n as usize,
        };
        let needs = entry.step.needs.len();
        if wanted > needs {
            let message = format!(
                "waits for {wanted} of {needs} needs and would never run; add needs or change the join"
            );
            self.problem(&entry.member("join"), ProblemCode::UnreachableStep, message);
        }
    }

    fn cycle(&mut self, graph: &Graph, list: &List<'_>, cycle: &[u32]) {
        let ids = cycle.iter().chain(cycle.first()).filter_map(|step| graph.ids.get(*step as usize));
        let circle = ids.map(AsRef::as_ref).collect::<Vec<&str>>().join(" → ");
        let message = format!("steps need each other in a circle: {circle}");
        let first = cycle.first().and_then(|step| list.steps.get(*step as usize));
        let path = first.map(|entry| entry.member("needs")).unwrap_or_default();
        self.problem(&path, ProblemCode::Cycle, message);
    }

    fn finish(&mut self, graph: &Graph, list: &List<'_>, around: Option<&Spot<'_>>) -> Finish {
        let spot = Spot::of_output(graph, graph.main, around);
        let sinks = (0..graph.main).zip(&graph.dependents).filter(|(_, dependents)| dependents.is_empty());
        let sinks: Vec<u32> = sinks.map(|(step, _)| step).collect();
        match (&list.output, sinks.as_slice()) {
            (None, [sink]) => Finish::Sink(*sink),
            (Some((output, path)), _) => Finish::Evaluate(self.template(output, &spot, path)),
            (None, sinks) => {
                let ids = sinks.iter().filter_map(|sink| graph.ids.get(*sink as usize));
                let members =
                    ids.map(|id| (id.to_string(), Value::from(format!("${{ .steps[\"{id}\"].output }}"))));
                let output = Value::Object(members.collect::<Map<_, _>>());
                Finish::Evaluate(self.template(&output, &spot, &[name("output")]))
            }
        }
    }
}

/// Steps that approvals of the list may have run again.
fn revised(graph: &Graph, list: &List<'_>) -> HashSet<u32> {
    let approvals = list.steps.iter().filter_map(|entry| match &entry.step.action {
        ActionDefinition::Approval(approval) => approval.of.as_deref(),
        _ => None,
    });
    approvals.filter_map(|of| graph.main_index(of)).collect()
}

impl Plan {
    /// What its expressions read, those of its blocks as far as it has to give it to them.
    pub(super) fn reads(&self) -> References {
        let mut reads = References::default();
        for step in &self.steps {
            reads.add(&step.references());
        }
        if let Finish::Evaluate(template) = &self.finish {
            reads.add(template.references());
        }
        reads
    }
}
