//! What is wrong with settings, told all at once.

use std::fmt;

use super::{
    key_path::dotted,
    node::Node,
    origin::Origin,
    read::{Fault, ReadError},
    secret::{is_secret_path, redact_urls},
};

/// One thing that is wrong, where it stands, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: Origin,
    key: String,
    message: String,
}

impl Problem {
    pub(crate) fn new(origin: Origin, key: &str, message: impl Into<String>) -> Self {
        Self { origin, key: key.to_owned(), message: redact_urls(&message.into()) }
    }

    /// The key with dots, or nothing when the problem is not about one.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Settings that are refused: every problem found, one a line.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    /// Refuses settings because of these problems.
    #[must_use]
    pub const fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What is wrong, in the order in which it was found.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for SettingsError {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Words for an error of reading, with the origin of what caused it.
pub(super) fn from_read_error(error: &ReadError, tree: &Node) -> Problem {
    let path = error.culprit();
    let message = match error.fault() {
        Fault::UnknownKey { key, known } => {
            let sections = if path.len() == 1 { super::SECTIONS } else { &[] };
            let hint = match nearest(key, known.iter().chain(sections).copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", listed(known)),
            };
            format!("unknown key; {hint}")
        }
        Fault::UnknownVariant { value, known } => match nearest(value, known.iter().copied()) {
            Some(near) => format!("`{value}` is not among {}; did you mean `{near}`?", listed(known)),
            None => format!("`{value}` is not among {}", listed(known)),
        },
        Fault::Missing(key) => format!("`{key}` is missing"),
        Fault::Other(_) if is_secret_path(&path) => {
            "its value has the wrong form (it is not shown, as it may be secret)".to_owned()
        }
        Fault::Other(message) => message.clone(),
    };
    Problem::new(tree.origin_of(&path), &dotted(&path), message)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that `given` was most likely meant to be.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (given.chars().count() / 3).max(1);
    known
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
