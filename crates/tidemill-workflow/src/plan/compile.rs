//! From a definition to a plan: everything that can only be checked with the whole in view.

mod action;
mod list;
mod step;
mod unique;

use std::collections::{HashMap, HashSet};

use serde_json::Value;

pub(super) use self::list::{Entry, Level, List};
use super::graph::Graph;
use super::spot::Spot;
use super::{Group, Plan, ToolCatalog};
use crate::definition::{Definition, FailurePolicy, Origin};
use crate::nearest::nearest;
use crate::problem::{Problem, ProblemCode, Problems};
use crate::schema::Schema;
use crate::source::{Segment, path_text};
use crate::template::{self, Around, Complaint, Template};

/// Queue of a workflow that names none.
const QUEUE: &str = "default";

impl Definition {
    /// Checks the definition as a whole and makes it a plan.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn compile(self, catalog: &dyn ToolCatalog) -> Result<Plan, Problems> {
        finished(&self, catalog, Vec::new())
    }
}

impl Plan {
    /// Reads and checks a definition, and reports what is wrong with its members together with what is wrong with the
    /// whole.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn from_source(text: &str, file: &str, catalog: &dyn ToolCatalog) -> Result<Self, Problems> {
        let (definition, problems) = Definition::read(text, file);
        match definition {
            Some(definition) => finished(&definition, catalog, problems),
            None => Err(Problems::new(problems)),
        }
    }

    /// The same for a definition that was published under this name and version: that is what it is called, with its
    /// blocks, whatever its text says.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn published(
        text: &str,
        (name, version): (&str, u32),
        catalog: &dyn ToolCatalog,
    ) -> Result<Self, Problems> {
        let (definition, problems) = Definition::read(text, &format!("workflow {name}@{version}"));
        let Some(mut definition) = definition else { return Err(Problems::new(problems)) };
        name.clone_into(&mut definition.name);
        definition.version = Some(version);
        finished(&definition, catalog, problems)
    }
}

fn finished(
    definition: &Definition,
    catalog: &dyn ToolCatalog,
    mut problems: Vec<Problem>,
) -> Result<Plan, Problems> {
    let mut compiler = Compiler::new(definition, catalog);
    let plan = compiler.workflow(definition);
    problems.append(&mut compiler.problems);
    if problems.is_empty() { Ok(plan) } else { Err(Problems::new(problems)) }
}

pub(super) struct Compiler<'c> {
    origin: &'c Origin,
    catalog: &'c dyn ToolCatalog,
    /// What every block has of the workflow.
    whole: Whole<'c>,
    problems: Vec<Problem>,
    /// Places and messages of the problems: what is compiled twice, as for a revision, has each once.
    told: HashSet<(String, String)>,
    /// How many steps were compiled.
    steps: usize,
    /// Names of tools, asked for when the first is unknown.
    tool_names: Option<Vec<String>>,
    /// Schemas of tools, compiled when first needed.
    tool_schemas: HashMap<String, Option<Schema>>,
}

/// What every block has of the workflow.
#[derive(Clone, Copy)]
pub(super) struct Whole<'c> {
    name: &'c str,
    version: u32,
    failure: FailurePolicy,
    retention_ms: Option<u64>,
}

pub(super) fn name(name: &str) -> Segment {
    Segment::Name(name.to_owned())
}

impl<'c> Compiler<'c> {
    fn new(definition: &'c Definition, catalog: &'c dyn ToolCatalog) -> Self {
        let whole = Whole {
            name: &definition.name,
            version: definition.version.unwrap_or(1),
            failure: definition.failure,
            retention_ms: definition.retention_ms,
        };
        Self {
            origin: &definition.origin,
            catalog,
            whole,
            problems: Vec::new(),
            told: HashSet::new(),
            steps: 0,
            tool_names: None,
            tool_schemas: HashMap::new(),
        }
    }

    pub(super) fn problem(&mut self, path: &[Segment], code: ProblemCode, message: String) {
        let place = self.origin.root.place_of(path);
        let file = self.origin.file.to_string();
        let path = path_text(path);
        if self.told.insert((path.clone(), message.clone())) {
            self.problems.push(Problem { file, line: place.line, column: place.column, path, code, message });
        }
    }

    pub(super) fn complaints(&mut self, base: &[Segment], complaints: Vec<Complaint>) {
        for complaint in complaints {
            let path: Vec<Segment> = base.iter().cloned().chain(complaint.path).collect();
            self.problem(&path, complaint.code, complaint.message);
        }
    }

    fn workflow(&mut self, definition: &Definition) -> Plan {
        self.unique(definition);
        let mut plan = self.list(&List::of_workflow(definition), None);
        plan.queue = definition.queue.clone().unwrap_or_else(|| QUEUE.to_owned());
        let duration_ms = definition.budget.and_then(|budget| budget.duration_ms);
        plan.timeout_ms = definition.timeout_ms.into_iter().chain(duration_ms).min();
        plan.input_schema =
            definition.input.as_ref().and_then(|schema| self.schema(schema, &[name("input")]));
        let nothing = Graph::default();
        let start = Spot::of_start(&nothing);
        for (label, value) in &definition.labels {
            let template = self.template(value, &start, &[name("labels"), name(label)]);
            plan.labels.push((label.clone(), template));
        }
        plan.group = definition.group.as_ref().map(|group| {
            let key = self.template(&group.key, &start, &[name("group"), name("key")]);
            Group { key, limit: group.limit, on_full: group.on_full }
        });
        plan.budget = definition.budget;
        plan.mode.clone_from(&definition.mode);
        plan
    }

    fn schema(&mut self, schema: &Value, path: &[Segment]) -> Option<Schema> {
        match Schema::compile(schema) {
            Ok(schema) => Some(schema),
            Err(message) => {
                self.problem(path, ProblemCode::BadSchema, message);
                None
            }
        }
    }

    pub(super) fn template(&mut self, value: &Value, spot: &dyn Around, path: &[Segment]) -> Template {
        let mut complaints = Vec::new();
        let template = template::compile(value, spot, &mut complaints);
        self.complaints(path, complaints);
        template
    }

    /// Checks that a tool exists; with its input, if all of that has compiled, that it fits where it is constant.
    fn tool(&mut self, tool: &str, with: Option<&Template>, path: &[Segment]) {
        if tool.is_empty() {
            // Missing or malformed, which has been said.
            return;
        }
        let below = |member: &str| path.iter().cloned().chain([name(member)]).collect::<Vec<_>>();
        if !self.catalog.knows(tool) {
            let catalog = self.catalog;
            let names = self.tool_names.get_or_insert_with(|| catalog.names());
            let hint = nearest(tool, names.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let message = format!("there is no tool `{tool}`{hint}");
            return self.problem(&below("tool"), ProblemCode::UnknownTool, message);
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
            self.problem(&below("with"), ProblemCode::BadToolInput, message);
        }
    }
}
