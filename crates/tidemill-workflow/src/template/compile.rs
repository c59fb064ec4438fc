//! From JSON values to templates, with every problem found on the way.

use std::sync::Arc;

use serde_json::Value;

use super::braces::Path;
use super::text::{Part, is_plain, parts};
use super::{Expr, Piece, References, Slot, Splice, Template, insert};
use crate::expr::{CONTEXT, Filter, PLACED, Uses};
use crate::nearest::nearest;
use crate::problem::ProblemCode;
use crate::source::Segment;

/// What an expression stands amid.
pub(crate) trait Around {
    /// A step.
    fn step(&self, id: &str) -> Option<Found>;
    /// Whether the step has surely ended, or been passed by, when the expression is evaluated.
    fn is_upstream(&self, step: &Found) -> bool;
    /// All such steps.
    fn upstream(&self) -> Vec<Found>;
    /// Ids of all steps, for suggestions.
    fn ids(&self) -> Vec<Arc<str>>;
    /// Whether this name of [`LOCALS`](crate::LOCALS) exists.
    fn has(&self, local: &str) -> bool;
    /// Whether it is evaluated when the end of the run has been decided.
    fn is_closing(&self) -> bool;
}

/// A step that an expression may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// One of the same plan.
    Own(u32, Arc<str>),
    /// One around the block.
    Outer(Arc<str>),
}

/// A problem, with the path below the value that was compiled.
pub(crate) struct Complaint {
    pub(crate) path: Vec<Segment>,
    pub(crate) code: ProblemCode,
    pub(crate) message: String,
}

/// Compiles a value; complaints are added to `complaints`, and what they are about renders as null.
pub(crate) fn compile(value: &Value, around: &dyn Around, complaints: &mut Vec<Complaint>) -> Template {
    let mut builder = Builder::new(around, complaints);
    builder.value(value);
    Template { pieces: builder.pieces, references: builder.references }
}

/// Compiles a condition: one `${ … }` or `{{ … }}`, or a constant boolean.
pub(crate) fn compile_condition(
    value: &Value,
    around: &dyn Around,
    complaints: &mut Vec<Complaint>,
) -> Option<Expr> {
    let mut builder = Builder::new(around, complaints);
    let slot = match value {
        Value::Bool(constant) => builder.slot(if *constant { "true" } else { "false" }),
        Value::String(text) => match split(text, &builder.placed.clone()).as_deref() {
            Ok([Part::Expression(expression)]) => builder.slot(expression),
            Ok([Part::Path(path)]) => builder.path(path, false),
            Ok(_) => {
                builder.complain(
                    ProblemCode::BadValue,
                    "must be one expression, `${ … }` or `{{ … }}`, and nothing around it".to_owned(),
                );
                None
            }
            Err(message) => {
                builder.complain(ProblemCode::BadExpression, message.clone());
                None
            }
        },
        _ => {
            builder.complain(
                ProblemCode::BadValue,
                "must be an expression, `${ … }`, that gives true or false".to_owned(),
            );
            None
        }
    };
    slot.map(|slot| Expr { gates: Vec::new(), references: slot.references.clone(), slot: Some(slot) })
}

/// The parts of a string. A line break after its only expression, as a YAML block leaves it, does not count.
fn split<'t>(text: &'t str, placed: &'t [&'static str]) -> Result<Vec<Part<'t>>, String> {
    let trimmed = text.trim_end_matches(['\n', '\r']);
    if trimmed.len() < text.len() && trimmed.starts_with(['$', '{']) {
        let parts = parts(trimmed, placed)?;
        if let [Part::Expression(_) | Part::Path(_)] = parts.as_slice() {
            return Ok(parts);
        }
    }
    parts(text, placed)
}

struct Builder<'b> {
    around: &'b dyn Around,
    complaints: &'b mut Vec<Complaint>,
    path: Vec<Segment>,
    pieces: Vec<Piece>,
    references: References,
    /// Names that there are here, and not everywhere.
    placed: Vec<&'static str>,
}

impl<'b> Builder<'b> {
    fn new(around: &'b dyn Around, complaints: &'b mut Vec<Complaint>) -> Self {
        let placed = PLACED.into_iter().filter(|name| around.has(name)).collect();
        let (path, pieces, references) = (Vec::new(), Vec::new(), References::default());
        Self { around, complaints, path, pieces, references, placed }
    }

    fn complain(&mut self, code: ProblemCode, message: String) {
        self.complaints.push(Complaint { path: self.path.clone(), code, message });
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(values) => {
                self.json("[");
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        self.json(",");
                    }
                    self.path.push(Segment::At(at));
                    self.value(value);
                    self.path.pop();
                }
                self.json("]");
            }
            Value::Object(members) => {
                self.json("{");
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        self.json(",");
                    }
                    self.json(&Value::from(name.as_str()).to_string());
                    self.json(":");
                    self.path.push(Segment::Name(name.clone()));
                    self.value(value);
                    self.path.pop();
                }
                self.json("}");
            }
            scalar => self.json(&scalar.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        if is_plain(text) {
            return self.json(&Value::from(text).to_string());
        }
        let slot = match split(text, &self.placed.clone()).as_deref() {
            Ok([Part::Expression(expression)]) => self.slot(expression),
            Ok([Part::Path(path)]) => self.path(path, false),
            Ok(parts) => return self.interpolated(parts),
            Err(message) => {
                self.complain(ProblemCode::BadExpression, message.clone());
                None
            }
        };
        match slot {
            Some(slot) => self.pieces.push(Piece::Value(slot)),
            None => self.json("null"),
        }
    }

    fn interpolated(&mut self, parts: &[Part<'_>]) {
        self.json("\"");
        for part in parts {
            let slot = match part {
                Part::Text(text) => {
                    let quoted = Value::from(text.as_str()).to_string();
                    self.json(quoted.get(1..quoted.len() - 1).unwrap_or_default());
                    None
                }
                Part::Expression(expression) => self.slot(expression),
                Part::Path(path) => self.path(path, true),
            };
            self.pieces.extend(slot.map(Piece::Text));
        }
        self.json("\"");
    }

    fn json(&mut self, text: &str) {
        if let Some(Piece::Json(last)) = self.pieces.last_mut() {
            last.extend_from_slice(text.as_bytes());
        } else {
            self.pieces.push(Piece::Json(text.as_bytes().to_vec()));
        }
    }

    fn slot(&mut self, expression: &str) -> Option<Slot> {
        let filter = match Filter::compile(expression.trim()) {
            Ok(filter) => filter,
            Err(message) => {
                let shown: String = expression.trim().chars().take(60).collect();
                self.complain(ProblemCode::BadExpression, format!("expression `{shown}`: {message}"));
                return None;
            }
        };
        let splice = filter.plain_path().and_then(|path| self.splice(path));
        let references = self.read_by(&filter);
        Some(Slot { filter, splice, is_strict: false, references })
    }

    fn path(&mut self, path: &Path, as_text: bool) -> Option<Slot> {
        let filter = match Filter::compile_as(&path.source, &path.to_jq(as_text)) {
            Ok(filter) => filter,
            Err(message) => {
                self.complain(ProblemCode::BadExpression, format!("template `{}`: {message}", path.source));
                return None;
            }
        };
        let splice = path.document().and_then(|path| self.splice(&path));
        let references = self.read_by(&filter);
        Some(Slot { filter, splice, is_strict: true, references })
    }

    fn read_by(&mut self, filter: &Filter) -> References {
        let references = self.references_of(filter.uses());
        self.references.add(&references);
        references
    }

    fn references_of(&mut self, uses: &Uses) -> References {
        self.unknown(uses);
        self.misplaced(uses);
        let mut found = Vec::new();
        for id in &uses.steps {
            match self.around.step(id) {
                None => {
                    let ids = self.around.ids();
                    let hint = nearest(id, ids.iter().map(AsRef::as_ref))
                        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    self.complain(
                        ProblemCode::UnknownStepReference,
                        format!("there is no step `{id}`{hint}"),
                    );
                }
                Some(step) if !self.around.is_upstream(&step) => {
                    let message = format!("step `{id}` need not have ended by then; add it to `needs`");
                    self.complain(ProblemCode::NotUpstream, message);
                }
                Some(step) => found.push(step),
            }
        }
        if uses.all_steps {
            found = self.around.upstream();
        }
        let item = uses.item && self.around.has("item");
        let locals = uses.placed.iter().copied().filter(|name| self.around.has(name)).collect();
        let mut references =
            References { input: uses.input, run: uses.run, item, locals, ..References::default() };
        for step in found {
            match step {
                Found::Own(step, id) => references.add(&References::of_step(step, id)),
                Found::Outer(id) => insert(&mut references.outer, id),
            }
        }
        references
    }

    /// Members of the context that there are nowhere.
    fn unknown(&mut self, uses: &Uses) {
        for name in &uses.unknown {
            let names = CONTEXT.into_iter().chain(self.placed.iter().copied());
            let hint = nearest(name, names)
                .map_or_else(|| ".".to_owned(), |near| format!("; did you mean `.{near}`?"));
            let mut known = "`.input`, `.steps`, `.run`, and in for_each `.item` and `.index`".to_owned();
            for name in &self.placed {
                known.push_str(&format!(", here `.{name}`"));
            }
            self.complain(
                ProblemCode::BadExpression,
                format!("there is no `.{name}`{hint} An expression sees {known}"),
            );
        }
    }

    /// Members of the context that there are elsewhere.
    fn misplaced(&mut self, uses: &Uses) {
        if uses.certain_item && !self.around.has("item") {
            self.complain(
                ProblemCode::BadExpression,
                "`.item` and `.index` do not exist outside of `for_each`".to_owned(),
            );
        }
        for name in uses.certain_placed.iter().filter(|name| !self.around.has(name)) {
            let place = match *name {
                "feedback" => "in the step that an approval is `of`, and in its prompt and reminder",
                "output" => {
                    "in `while` and `until` of `repeat`, and in the `wait` of a step with a tool; elsewhere it is \
                     `.steps.ID.output`"
                }
                _ => "in a step with `repeat`, and in the step that an approval is `of`",
            };
            self.complain(ProblemCode::BadExpression, format!("`.{name}` exists only {place}"));
        }
        if !self.around.is_closing()
            && let Some(name) = ["state", "error"].into_iter().find(|name| uses.of_run.contains(*name))
        {
            let message = format!("`.run.{name}` exists only in `compensate` and `finally`");
            self.complain(ProblemCode::BadExpression, message);
        }
    }

    fn splice(&self, path: &[String]) -> Option<Splice> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["input"] => Some(Splice::Input),
            ["item"] if self.around.has("item") => Some(Splice::Item),
            ["steps", id, member @ ("output" | "error")] => {
                self.around.step(id).map(|step| match (step, *member) {
                    (Found::Own(step, _), "output") => Splice::Output(step),
                    (Found::Own(step, _), _) => Splice::Error(step),
                    (Found::Outer(id), "output") => Splice::Outer(id, "output"),
                    (Found::Outer(id), _) => Splice::Outer(id, "error"),
                })
            }
            [name] => self.placed.iter().find(|placed| *placed == name).copied().map(Splice::Local),
            _ => None,
        }
    }
}
