//! From a definition to a plan: everything that can only be checked with the whole in view.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::graph::Graph;
use super::spot::{Locals, Spot};
use super::switch::Choices;
use super::{Action, Finish, ForEach, Plan, PlanStep, Tolerance, ToolCatalog};
use crate::definition::{ActionDefinition, Definition, Join, OnError, Origin, StepDefinition};
use crate::nearest::nearest;
use crate::problem::{Problem, ProblemCode, Problems};
use crate::schema::Schema;
use crate::source::{Segment, path_text};
use crate::template::{self, Complaint, Expr, Gate, Template};

/// Items that `for_each` runs at once where the definition does not say.
const CONCURRENCY: u32 = 10;
/// Queue of a workflow that names none.
const QUEUE: &str = "default";

impl Definition {
    /// Checks the definition as a whole and makes it a plan.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn compile(self, catalog: &dyn ToolCatalog) -> Result<Plan, Problems> {
        let mut compiler = Compiler::new(&self.origin, catalog);
        let plan = compiler.plan(&self);
        if compiler.problems.is_empty() { Ok(plan) } else { Err(Problems::new(compiler.problems)) }
    }
}

impl Plan {
    /// Reads and checks a definition, and reports what is wrong with its members together with what is wrong with the
    /// whole.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn from_source(text: &str, file: &str, catalog: &dyn ToolCatalog) -> Result<Self, Problems> {
        let (definition, mut problems) = Definition::read(text, file);
        let Some(definition) = definition else { return Err(Problems::new(problems)) };
        let mut compiler = Compiler::new(&definition.origin, catalog);
        let plan = compiler.plan(&definition);
        problems.append(&mut compiler.problems);
        if problems.is_empty() { Ok(plan) } else { Err(Problems::new(problems)) }
    }
}

pub(super) struct Compiler<'c> {
    origin: &'c Origin,
    catalog: &'c dyn ToolCatalog,
    problems: Vec<Problem>,
    /// Names of tools, asked for when the first is unknown.
    tool_names: Option<Vec<String>>,
    /// Schemas of tools, compiled when first needed.
    tool_schemas: HashMap<String, Option<Schema>>,
}

fn name(name: &str) -> Segment {
    Segment::Name(name.to_owned())
}

pub(super) fn step_path(step: usize, member: &str) -> Vec<Segment> {
    vec![name("steps"), Segment::At(step), name(member)]
}

impl<'c> Compiler<'c> {
    fn new(origin: &'c Origin, catalog: &'c dyn ToolCatalog) -> Self {
        Self { origin, catalog, problems: Vec::new(), tool_names: None, tool_schemas: HashMap::new() }
    }

    pub(super) fn problem(&mut self, path: &[Segment], code: ProblemCode, message: String) {
        let place = self.origin.root.place_of(path);
        let file = self.origin.file.to_string();
        self.problems.push(Problem {
            file,
            line: place.line,
            column: place.column,
            path: path_text(path),
            code,
            message,
        });
    }

    pub(super) fn complaints(&mut self, base: &[Segment], complaints: Vec<Complaint>) {
        for complaint in complaints {
            let path: Vec<Segment> = base.iter().cloned().chain(complaint.path).collect();
            self.problem(&path, complaint.code, complaint.message);
        }
    }

    fn plan(&mut self, definition: &Definition) -> Plan {
        let (graph, choices) = self.graph(definition);
        let input_schema = definition.input.as_ref().and_then(|schema| self.schema(schema));
        let steps = definition
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| self.step(&graph, &choices, (at, step)))
            .collect();
        let ends = |edges: &[Vec<u32>]| {
            (0..).zip(edges).filter(|(_, edges)| edges.is_empty()).map(|(at, _)| at).collect()
        };
        let sinks: Vec<u32> = ends(&graph.dependents);
        let finish = self.finish(&graph, definition.output.as_ref(), &sinks);
        Plan {
            name: definition.name.clone(),
            version: definition.version.unwrap_or(1),
            queue: definition.queue.clone().unwrap_or_else(|| QUEUE.to_owned()),
            timeout_ms: definition.timeout_ms,
            failure: definition.failure,
            retention_ms: definition.retention_ms,
            steps,
            finish,
            block: None,
            labels: Vec::new(),
            group: None,
            budget: None,
            mode: None,
            waits: false,
            finally: Vec::new(),
            main: u32::try_from(definition.steps.len()).unwrap_or(u32::MAX),
            blocks: HashMap::new(),
            input_schema,
            roots: ends(&graph.needs),
            sinks,
            dependents: graph.dependents,
            index: graph.index,
            in_order: std::sync::OnceLock::new(),
        }
    }

    fn graph(&mut self, definition: &Definition) -> (Graph, Choices) {
        let ids: Vec<Arc<str>> = definition.steps.iter().map(|step| Arc::from(step.id.as_str())).collect();
        let mut graph = Graph::new(ids);
        for (at, step) in (0_u32..).zip(&definition.steps) {
            if graph.index.get(step.id.as_str()).is_some_and(|first| *first != at) {
                let message = format!("another step has the id `{}` already", step.id);
                self.problem(&step_path(at as usize, "id"), ProblemCode::DuplicateId, message);
            }
            for (number, need) in step.needs.iter().enumerate() {
                match graph.index.get(need.as_str()) {
                    Some(need) => graph.add(at, *need),
                    None => self.unknown_need(&graph, (at as usize, number), need),
                }
            }
            self.join(at as usize, step);
        }
        let choices = self.choices(&mut graph, definition);
        for cycle in graph.cycles() {
            self.cycle(&graph, &cycle);
        }
        (graph, choices)
    }

    fn unknown_need(&mut self, graph: &Graph, (step, number): (usize, usize), need: &str) {
        let mut path = step_path(step, "needs");
        path.push(Segment::At(number));
        self.problem(&path, ProblemCode::UnknownNeed, graph.unknown(need));
    }

    /// A join that its needs can never meet.
    fn join(&mut self, at: usize, step: &StepDefinition) {
        let wanted = match step.join {
            Join::All => 0,
            Join::Any => 1,
            Join::NOf(n) => n as usize,
        };
        if wanted > step.needs.len() {
            let message = format!(
                "waits for {wanted} of {} needs and would never run; add needs or change the join",
                step.needs.len()
            );
            self.problem(&step_path(at, "join"), ProblemCode::UnreachableStep, message);
        }
    }

    fn cycle(&mut self, graph: &Graph, cycle: &[u32]) {
        let ids = cycle.iter().chain(cycle.first()).filter_map(|step| graph.ids.get(*step as usize));
        let circle = ids.map(AsRef::as_ref).collect::<Vec<&str>>().join(" → ");
        let first = cycle.first().map_or(0, |step| *step as usize);
        let message = format!("steps need each other in a circle: {circle}");
        self.problem(&step_path(first, "needs"), ProblemCode::Cycle, message);
    }

    fn schema(&mut self, schema: &Value) -> Option<Schema> {
        match Schema::compile(schema) {
            Ok(schema) => Some(schema),
            Err(message) => {
                self.problem(&[name("input")], ProblemCode::BadSchema, message);
                None
            }
        }
    }

    fn step(&mut self, graph: &Graph, choices: &Choices, (at, step): (usize, &StepDefinition)) -> PlanStep {
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        let spot = Spot::of_step(graph, index, None);
        let mut complaints = Vec::new();
        let condition =
            step.when.as_ref().and_then(|when| template::compile_condition(when, &spot, &mut complaints));
        self.complaints(&step_path(at, "when"), complaints);
        let id = graph.id(index);
        let chosen_by = choices.of(index);
        let when = match chosen_by {
            Some(by) => Expr::behind(vec![Gate::Chosen { switch: (by.switch, graph.id(by.switch)), step: Arc::clone(&id) }], condition),
            None => condition,
        };
        let for_each = step.for_each.as_ref().map(|for_each| {
            let items = self.template(&for_each.items, &spot, &items_path(self.origin, at));
            let concurrency = for_each.concurrency.unwrap_or(CONCURRENCY);
            ForEach { items, concurrency, batch: 0, tolerate: for_each.tolerate.unwrap_or(Tolerance::Count(0)) }
        });
        let spot = spot.with(Locals { item: for_each.is_some(), ..Locals::default() });
        let (action, with) = match &step.action {
            ActionDefinition::Tool { tool, with } => {
                let before = self.problems.len();
                let with = self.template(with, &spot, &step_path(at, "with"));
                // what did not compile stands in it as null, which nobody wrote
                self.tool(at, tool, Some(&with).filter(|_| self.problems.len() == before));
                (Action::Tool { tool: tool.as_str().into() }, with)
            }
            ActionDefinition::Switch(switch) => (Action::Decide, self.switch(at, switch, &spot)),
            _ => (Action::Decide, Template::choosing(Vec::new(), &[], false)),
        };
        PlanStep {
            id,
            action,
            needs: graph.needs_of(index).to_vec(),
            join: step.join,
            when,
            chosen_by,
            rescues: Vec::new(),
            with,
            for_each,
            retry: step.retry.clone(),
            timeout_ms: step.timeout_ms,
            continue_on_error: step.on_error == OnError::Continue,
            compensate_on_error: false,
            queue: step.queue.clone(),
            repeat: None,
            then_wait: None,
            undo: None,
            after: None,
            one_at_a_time: false,
        }
    }

    fn template(&mut self, value: &Value, spot: &Spot<'_>, path: &[Segment]) -> Template {
        let mut complaints = Vec::new();
        let template = template::compile(value, spot, &mut complaints);
        self.complaints(path, complaints);
        template
    }

    fn tool(&mut self, at: usize, tool: &str, with: Option<&Template>) {
        if tool.is_empty() {
            // Missing or malformed, which has been said.
            return;
        }
        if !self.catalog.knows(tool) {
            let catalog = self.catalog;
            let names = self.tool_names.get_or_insert_with(|| catalog.names());
            let hint = nearest(tool, names.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            self.problem(
                &step_path(at, "tool"),
                ProblemCode::UnknownTool,
                format!("there is no tool `{tool}`{hint}"),
            );
            return;
        }
        let Some(Ok(input)) = with.and_then(Template::constant).map(serde_json::from_slice::<Value>) else {
            return;
        };
        let catalog = self.catalog;
        // A tool's own schema is tested with the tool; one that does not compile checks nothing here.
        let schema = self
            .tool_schemas
            .entry(tool.to_owned())
            .or_insert_with(|| catalog.input_schema(tool).and_then(|schema| Schema::compile(&schema).ok()));
        if let Some(Err(violations)) = schema.as_ref().map(|schema| schema.check(&input)) {
            let message = format!("does not fit the input of `{tool}`: {}", violations.join("; "));
            self.problem(&step_path(at, "with"), ProblemCode::BadToolInput, message);
        }
    }

    fn finish(&mut self, graph: &Graph, output: Option<&Value>, sinks: &[u32]) -> Finish {
        match (output, sinks) {
            (None, [sink]) => Finish::Sink(*sink),
            (Some(output), _) => {
                Finish::Evaluate(self.template(output, &Spot::of_output(graph, u32::MAX, None), &[name("output")]))
            }
            (None, sinks) => {
                let ids = sinks.iter().filter_map(|sink| graph.ids.get(*sink as usize));
                let members =
                    ids.map(|id| (id.to_string(), Value::from(format!("${{ .steps[\"{id}\"].output }}"))));
                let output = Value::Object(members.collect::<Map<_, _>>());
                Finish::Evaluate(self.template(&output, &Spot::of_output(graph, u32::MAX, None), &[name("output")]))
            }
        }
    }
}

/// `for_each` may be the items themselves.
fn items_path(origin: &Origin, at: usize) -> Vec<Segment> {
    let mut path = step_path(at, "for_each");
    let steps = origin.root.member("steps").map(|member| &member.value);
    let is_object = steps
        .and_then(|steps| steps.at(at))
        .and_then(|step| step.member("for_each"))
        .is_some_and(|member| member.value.member("items").is_some());
    if is_object {
        path.push(name("items"));
    }
    path
}
