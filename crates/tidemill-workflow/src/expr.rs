//! jq expressions with limits.
//!
//! [`Filter`] is a compiled jq filter that gives exactly one value. It can be run by anyone on any input without harm:
//! it reaches no clock, file, variable of the environment or module, and [`Limits`] bound its steps, its memory and its
//! output whatever it does. Workflows use it through [`Template`](crate::Template).

mod bound;
mod engine;
mod json;
mod meter;
mod natives;
mod prelude;
#[cfg(test)]
mod tests;
mod uses;
mod value;

use std::fmt;
use std::sync::Arc;

pub use bound::BoundFilter;
use engine::Program;
pub(crate) use json::write_escaped;
pub(crate) use uses::{CONTEXT, PLACED, Uses};
pub(crate) use value::{Members, Val};

/// Bounds of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the interpreter; copying and comparing count by size (default 1,000,000, well under a second).
    pub fuel: u64,
    /// Longest JSON text of an output, in bytes (default 1 MiB).
    pub output_bytes: usize,
    /// Deepest nesting of arrays and objects that an expression may build (default 128).
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 1_000_000, output_bytes: 1 << 20, depth: 128 }
    }
}

impl Limits {
    /// The same limits with other fuel: a first try with little fuel on the calling thread, say, before a second one
    /// with all of it on a thread that may block.
    #[must_use]
    pub const fn with_fuel(self, fuel: u64) -> Self {
        Self { fuel, ..self }
    }
}

/// Why an evaluation failed. [`code`](Self::code) is stable; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression `{expression}` {fault}")]
pub struct ExprError {
    /// The expression, shortened.
    pub expression: String,
    /// What went wrong.
    pub fault: Fault,
}

/// What went wrong in an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It took more steps than allowed. A caller with more to give can try again.
    #[error("took more than {fuel} steps and was stopped; make it simpler or give it less data")]
    OutOfFuel {
        /// The limit.
        fuel: u64,
    },
    /// The definitions in it call themselves too deep.
    #[error("recurses too deep and was stopped; let the definition call itself last")]
    TooRecursive,
    /// It builds a value nested too deep.
    #[error("builds a value nested more than {depth} deep")]
    TooDeep {
        /// The limit.
        depth: usize,
    },
    /// What it gives is too long as JSON.
    #[error("gives more than {limit_bytes} bytes of JSON; select what is needed")]
    OutputTooLarge {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// It gives nothing.
    #[error("gives no value; it must give exactly one (use `// null` or wrap it in `[…]`)")]
    NoOutput,
    /// It gives more than one value.
    #[error("gives more than one value; it must give exactly one (wrap it in `[…]` for an array)")]
    ManyOutputs,
    /// A condition that is neither true nor false.
    #[error("gives {got} where true or false is needed")]
    NotBoolean {
        /// The kind of value it gave.
        got: &'static str,
    },
    /// `for_each.items` that is not an array.
    #[error("gives {got} where an array is needed")]
    NotArray {
        /// The kind of value it gave.
        got: &'static str,
    },
    /// It failed by itself: a type error, `error(…)`, a division by zero.
    #[error("failed: {message}")]
    Failed {
        /// jq's message.
        message: String,
    },
    /// What it reads is not valid JSON.
    #[error("reads {what}, which is not valid JSON: {reason}")]
    BadScope {
        /// The part of the scope.
        what: String,
        /// The parser's message.
        reason: String,
    },
}

impl ExprError {
    pub(crate) fn new(expression: &str, fault: Fault) -> Self {
        const SHOWN: usize = 80;
        let mut shown: String = expression.trim().chars().take(SHOWN).collect();
        if shown.len() < expression.trim().len() {
            shown.push('…');
        }
        Self { expression: shown, fault }
    }

    /// Whether more fuel could help.
    #[must_use]
    pub const fn is_out_of_fuel(&self) -> bool {
        matches!(self.fault, Fault::OutOfFuel { .. })
    }

    /// A stable word for the kind of failure.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.fault {
            Fault::OutOfFuel { .. } => "expression_out_of_fuel",
            Fault::TooRecursive | Fault::TooDeep { .. } => "expression_too_deep",
            Fault::OutputTooLarge { .. } => "expression_output_too_large",
            Fault::NoOutput | Fault::ManyOutputs | Fault::NotBoolean { .. } | Fault::NotArray { .. } => {
                "expression_wrong_output"
            }
            Fault::Failed { .. } => "expression_failed",
            Fault::BadScope { .. } => "expression_bad_scope",
        }
    }
}

/// A compiled jq filter that gives exactly one value. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Filter {
    source: Arc<str>,
    program: Arc<Program>,
}

impl Filter {
    /// Compiles jq text.
    ///
    /// # Errors
    /// What is wrong and at which column, as a sentence that follows "the filter".
    pub fn compile(source: &str) -> Result<Self, String> {
        Ok(Self { source: source.into(), program: Arc::new(Program::compile(source)?) })
    }

    /// Compiles jq text that stands for another text, which its errors show.
    pub(crate) fn compile_as(shown: &str, source: &str) -> Result<Self, String> {
        Ok(Self { source: shown.into(), program: Arc::new(Program::compile(source)?) })
    }

    /// The text that it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Runs the filter on a JSON text and gives its only output as JSON text.
    ///
    /// # Errors
    /// When the input is no JSON, the filter fails or a limit is reached.
    pub fn run(&self, input: &[u8], limits: &Limits) -> Result<Vec<u8>, ExprError> {
        let input = read("its input", input).map_err(|fault| self.error(fault))?;
        let mut out = Vec::new();
        self.write(input, &mut { *limits }, &mut out)?;
        Ok(out)
    }

    pub(crate) fn uses(&self) -> &Uses {
        self.program.uses()
    }

    pub(crate) fn plain_path(&self) -> Option<&[String]> {
        self.program.plain_path()
    }

    pub(crate) fn write(&self, input: Val, limits: &mut Limits, out: &mut Vec<u8>) -> Result<(), ExprError> {
        self.program.write(input, limits, out).map_err(|fault| self.error(fault))
    }

    /// Writes the output as the inside of a JSON string: strings as they are, anything else as compact JSON.
    pub(crate) fn write_text(
        &self,
        input: Val,
        limits: &mut Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), ExprError> {
        let limit_bytes = limits.output_bytes;
        let too_long = |json::TooLong| Fault::OutputTooLarge { limit_bytes };
        let write = |value: Val| {
            if let Val::Str(text) = &value {
                return write_escaped(text, out, limit_bytes).map_err(too_long);
            }
            let mut text = Vec::new();
            json::write(&value, &mut text, limit_bytes).map_err(too_long)?;
            write_escaped(&String::from_utf8_lossy(&text), out, limit_bytes).map_err(too_long)
        };
        self.program.run(input, limits, write).map_err(|fault| self.error(fault))
    }

    /// Runs the filter as a condition.
    pub(crate) fn decide(&self, input: Val, limits: &mut Limits) -> Result<bool, ExprError> {
        let decide = |value: Val| match value {
            Val::Bool(value) => Ok(value),
            other => Err(Fault::NotBoolean { got: other.kind() }),
        };
        self.program.run(input, limits, decide).map_err(|fault| self.error(fault))
    }

    pub(crate) fn error(&self, fault: Fault) -> ExprError {
        ExprError::new(&self.source, fault)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.source).finish()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Reads a part of what an expression works on.
pub(crate) fn read(what: &str, text: &[u8]) -> Result<Val, Fault> {
    json::read(text).map_err(|error| Fault::BadScope { what: what.to_owned(), reason: error.to_string() })
}
