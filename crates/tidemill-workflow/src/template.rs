//! JSON values with `${ … }` or `{{ … }}` in their strings, compiled once and rendered per step.
//!
//! A template is kept as the pieces of the JSON text that it renders to, so that rendering is concatenation: constant
//! parts are bytes already, and an expression that is nothing but a path to a whole document (`.input`,
//! `.steps.x.output`, `.item`) is answered by that document's text, unread.

mod braces;
mod choice;
mod compile;
mod gate;
mod text;

use std::sync::Arc;

pub(crate) use choice::Case;
pub(crate) use compile::{Around, Complaint, Found, compile, compile_condition};
pub use text::{TextPart, text_parts};

use choice::Choice;
pub(crate) use gate::Gate;

use crate::expr::{ExprError, Fault, Filter, Limits, Val};
use crate::scope::{Scope, text_or_null};

/// What has to be in scope for a template to be rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Whether the run's input is read.
    pub input: bool,
    /// Whether `.run` is read.
    pub run: bool,
    /// Whether `.item` or `.index` is read.
    pub item: bool,
    /// Indices of the steps whose records are read, sorted.
    pub steps: Vec<u32>,
    ids: Vec<Arc<str>>,
    /// Names of the other locals that are read, sorted.
    pub locals: Vec<&'static str>,
    /// Ids of the steps around the block whose records are read, sorted: the local `outer` has them.
    pub outer: Vec<Arc<str>>,
}

impl References {
    /// The steps read, with their ids.
    pub(crate) fn named(&self) -> impl Iterator<Item = (u32, &str)> {
        self.steps.iter().copied().zip(self.ids.iter().map(AsRef::as_ref))
    }

    /// That of one step.
    fn of_step(step: u32, id: Arc<str>) -> Self {
        Self { steps: vec![step], ids: vec![id], ..Self::default() }
    }

    /// Those of locals by their names.
    pub(crate) fn of_locals(names: &[&'static str]) -> Self {
        let mut references = Self::default();
        for name in names {
            match *name {
                "item" | "index" => references.item = true,
                name => insert(&mut references.locals, name),
            }
        }
        references
    }

    /// Whether something of what a block was given by its surroundings may be read.
    #[must_use]
    pub const fn reads_locals(&self) -> bool {
        self.item || !self.locals.is_empty() || !self.outer.is_empty()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.input |= other.input;
        self.run |= other.run;
        self.item |= other.item;
        other.locals.iter().for_each(|name| insert(&mut self.locals, *name));
        other.outer.iter().for_each(|id| insert(&mut self.outer, Arc::clone(id)));
        for (step, id) in other.steps.iter().zip(&other.ids) {
            if let Err(at) = self.steps.binary_search(step) {
                self.steps.insert(at, *step);
                self.ids.insert(at, Arc::clone(id));
            }
        }
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, value: T) {
    if let Err(at) = sorted.binary_search(&value) {
        sorted.insert(at, value);
    }
}

/// A compiled JSON value with expressions in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
    references: References,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    /// Finished JSON text.
    Json(Vec<u8>),
    /// An expression that gives a value.
    Value(Slot),
    /// An expression inside of a string.
    Text(Slot),
    /// What a switch chooses.
    Choice(Choice),
}

#[derive(Debug, Clone, PartialEq)]
struct Slot {
    filter: Filter,
    splice: Option<Splice>,
    /// A path in `{{ … }}`, for which null is no text.
    is_strict: bool,
    references: References,
}

/// A document whose text answers the expression as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Splice {
    Input,
    Output(u32),
    Error(u32),
    Item,
    Local(&'static str),
    /// Of a step around the block, its output or error.
    Outer(Arc<str>, &'static str),
}

impl Splice {
    fn text<'a>(&self, scope: &Scope<'a>) -> &'a [u8] {
        let text = match self {
            Self::Input => Some(scope.input),
            Self::Output(step) => scope.step(*step).output,
            Self::Error(step) => scope.step(*step).error,
            Self::Item => Some(scope.item.map_or_else(|| scope.local("item"), |(_, item)| item)),
            Self::Local(name) => Some(scope.local(name)),
            Self::Outer(id, member) => scope.outer(id, member),
        };
        text_or_null(text.unwrap_or_default()).trim_ascii()
    }
}

impl Template {
    /// What must be in scope.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// Whether there is no expression in it.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.constant().is_some()
    }

    /// The JSON text of a template without expressions.
    #[must_use]
    pub fn constant(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [Piece::Json(text)] => Some(text),
            _ => None,
        }
    }

    /// Renders to JSON text. The limits hold for the whole, whatever the number of expressions.
    ///
    /// # Errors
    /// When an expression fails or a limit is reached.
    pub fn render(&self, scope: &Scope<'_>, limits: &Limits) -> Result<Vec<u8>, ExprError> {
        if let Some(text) = self.constant() {
            return Ok(text.to_vec());
        }
        let mut renderer = Renderer { scope, limits, left: *limits, document: None, out: Vec::new() };
        for piece in &self.pieces {
            renderer.piece(piece, &self.references)?;
        }
        Ok(renderer.out)
    }
}

/// A condition: an expression that gives true or false.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What has to be so besides.
    gates: Vec<Gate>,
    /// The author's condition; without one it is true.
    slot: Option<Slot>,
    references: References,
}

impl Expr {
    /// What must be in scope.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// The text of the author's condition; there is none where only switches and failures decide.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.slot.as_ref().map(|slot| slot.filter.source())
    }

    /// Evaluates the condition.
    ///
    /// # Errors
    /// When it fails, reaches a limit or gives anything but true or false.
    pub fn is_true(&self, scope: &Scope<'_>, limits: &Limits) -> Result<bool, ExprError> {
        for gate in &self.gates {
            if !gate.is_open(scope)? {
                return Ok(false);
            }
        }
        let Some(slot) = &self.slot else { return Ok(true) };
        let document = scope.document(&slot.references).map_err(|fault| slot.filter.error(fault))?;
        slot.filter.decide(document, &mut { *limits })
    }
}

struct Renderer<'r, 'a> {
    scope: &'r Scope<'a>,
    limits: &'r Limits,
    /// The limits, with the fuel that is left.
    left: Limits,
    /// Built when the first expression needs it, then shared by the others.
    document: Option<Val>,
    out: Vec<u8>,
}

impl Renderer<'_, '_> {
    fn piece(&mut self, piece: &Piece, references: &References) -> Result<(), ExprError> {
        match piece {
            Piece::Json(text) => {
                self.push(text);
                self.check("the template")
            }
            Piece::Value(slot) => match &slot.splice {
                Some(splice) => {
                    self.push(splice.text(self.scope));
                    self.check(slot.filter.source())
                }
                None => self.evaluate(slot, references, false),
            },
            Piece::Text(slot) => match slot.splice.as_ref().map(|splice| splice.text(self.scope)) {
                Some(b"null") if slot.is_strict => self.evaluate(slot, references, true),
                // The inside of a JSON string is escaped already.
                Some([b'"', inside @ .., b'"']) => {
                    self.push(inside);
                    self.check(slot.filter.source())
                }
                Some(scalar) if !scalar.starts_with(b"{") && !scalar.starts_with(b"[") => {
                    self.push(scalar);
                    self.check(slot.filter.source())
                }
                _ => self.evaluate(slot, references, true),
            },
            Piece::Choice(choice) => choice.write(self, references),
        }
    }

    fn push(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    fn check(&self, expression: &str) -> Result<(), ExprError> {
        let limit_bytes = self.limits.output_bytes;
        if self.out.len() > limit_bytes {
            return Err(ExprError::new(expression, Fault::OutputTooLarge { limit_bytes }));
        }
        Ok(())
    }

    fn evaluate(&mut self, slot: &Slot, references: &References, as_text: bool) -> Result<(), ExprError> {
        let document = self.document(slot, references)?;
        let written = if as_text {
            slot.filter.write_text(document, &mut self.left, &mut self.out)
        } else {
            slot.filter.write(document, &mut self.left, &mut self.out)
        };
        written.map_err(|error| self.of_the_whole(error))
    }

    fn decide(&mut self, slot: &Slot, references: &References) -> Result<bool, ExprError> {
        let document = self.document(slot, references)?;
        slot.filter.decide(document, &mut self.left).map_err(|error| self.of_the_whole(error))
    }

    fn document(&mut self, slot: &Slot, references: &References) -> Result<Val, ExprError> {
        if let Some(document) = &self.document {
            return Ok(document.clone());
        }
        let document = self.scope.document(references).map_err(|fault| slot.filter.error(fault))?;
        Ok(self.document.insert(document).clone())
    }

    /// The fuel that an error speaks of is what the whole was given, not what was left of it.
    fn of_the_whole(&self, mut error: ExprError) -> ExprError {
        if let Fault::OutOfFuel { fuel } = &mut error.fault {
            *fuel = self.limits.fuel;
        }
        error
    }
}
