//! What is wrong with a definition: everything at once, each with its place.

use std::fmt;

/// The kind of a problem; its word is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemCode {
    /// The text is neither YAML nor JSON.
    BadSyntax,
    /// The text is longer, deeper or has more values than allowed.
    TooLarge,
    /// A member that the format does not have.
    UnknownMember,
    /// The same member twice.
    DuplicateMember,
    /// A member that must be there is not.
    MissingMember,
    /// A value of the wrong kind or out of range.
    BadValue,
    /// A member of the format that this version does not carry out yet.
    NotSupported,
    /// Two steps with one id.
    DuplicateId,
    /// `needs` names a step that does not exist.
    UnknownNeed,
    /// Steps need each other in a circle.
    Cycle,
    /// A step whose join can never be met.
    UnreachableStep,
    /// More steps than allowed.
    TooManySteps,
    /// A tool that does not exist.
    UnknownTool,
    /// A constant `with` that does not fit the tool's input schema.
    BadToolInput,
    /// An expression that does not compile.
    BadExpression,
    /// An expression reads, or a switch names, a step that does not exist.
    UnknownStepReference,
    /// A step that is named twice by switches.
    DuplicateChoice,
    /// An expression reads a step that has not surely ended before.
    NotUpstream,
    /// A JSON Schema that does not compile.
    BadSchema,
}

impl ProblemCode {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadSyntax => "bad_syntax",
            Self::TooLarge => "too_large",
            Self::UnknownMember => "unknown_member",
            Self::DuplicateMember => "duplicate_member",
            Self::MissingMember => "missing_member",
            Self::BadValue => "bad_value",
            Self::NotSupported => "not_supported",
            Self::DuplicateId => "duplicate_id",
            Self::UnknownNeed => "unknown_need",
            Self::Cycle => "cycle",
            Self::UnreachableStep => "unreachable_step",
            Self::TooManySteps => "too_many_steps",
            Self::UnknownTool => "unknown_tool",
            Self::BadToolInput => "bad_tool_input",
            Self::BadExpression => "bad_expression",
            Self::UnknownStepReference => "unknown_step_reference",
            Self::DuplicateChoice => "duplicate_choice",
            Self::NotUpstream => "not_upstream",
            Self::BadSchema => "bad_schema",
        }
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct Problem {
    /// Name of the file, as it was given.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// Path of the member, like `steps[2].with.url`; empty for the document.
    pub path: String,
    /// The kind of problem.
    pub code: ProblemCode,
    /// What is wrong and what to do.
    pub message: String,
}

/// All that is wrong with a definition, in the order of the text; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Puts them in the order of the text. A reader that found nothing has no need of this.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self(problems)
    }

    /// Each problem.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; never so for the error of a function.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is of this kind.
    #[must_use]
    pub fn has(&self, code: ProblemCode) -> bool {
        self.0.iter().any(|problem| problem.code == code)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem} [{}]", problem.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
