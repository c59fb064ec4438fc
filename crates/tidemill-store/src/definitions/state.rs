//! Where a version stands in its life, what it may be asked by, and the target by which a start asks for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a version of a workflow stands in its life. Runs under way go on with their version, wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Being tried: started only by `name@version-draft`.
    Draft,
    /// In use. The newest active version is what a plain name starts.
    Active,
    /// On its way out: started only by `name@version`, with a warning.
    Deprecated,
    /// Kept for the runs that it had: never started again, and never moved again.
    Archived,
}

impl VersionState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Draft, Self::Active, Self::Deprecated, Self::Archived];

    /// Every legal move. Going back from deprecated to active is how a new version is rolled back.
    pub const MOVES: &[(Self, Self)] = &[
        (Self::Draft, Self::Active),
        (Self::Draft, Self::Archived),
        (Self::Active, Self::Deprecated),
        (Self::Active, Self::Archived),
        (Self::Deprecated, Self::Active),
        (Self::Deprecated, Self::Archived),
    ];

    /// The word in Redis, in answers and in the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Archived => "archived",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether it may move there.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        Self::MOVES.contains(&(self, to))
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a start asks for: `name`, `name@version`, or `name@version-draft` by who knows that it may be a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkflowTarget<'a> {
    /// The workflow's name.
    pub name: &'a str,
    /// The version, if it is named.
    pub version: Option<u32>,
    /// Whether a draft will do.
    pub draft: bool,
}

impl<'a> WorkflowTarget<'a> {
    /// Behind a version: a draft will do.
    pub const DRAFT: &'static str = "-draft";

    /// Reads a target; `None` where what stands behind the `@` is no version.
    #[must_use]
    pub fn parse(target: &'a str) -> Option<Self> {
        let Some((name, version)) = target.rsplit_once('@') else {
            return Some(Self { name: target, version: None, draft: false });
        };
        let (digits, draft) = match version.strip_suffix(Self::DRAFT) {
            Some(digits) => (digits, true),
            None => (version, false),
        };
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let version = digits.parse().ok().filter(|_| plain)?;
        Some(Self { name, version: Some(version), draft })
    }
}

#[cfg(test)]
mod tests {
    use super::{VersionState, WorkflowTarget};

    #[test]
    fn a_target_names_a_workflow_a_version_and_whether_a_draft_will_do() {
        let of =
            |target| WorkflowTarget::parse(target).map(|target| (target.name, target.version, target.draft));
        assert_eq!(of("refund"), Some(("refund", None, false)));
        assert_eq!(of("refund@3"), Some(("refund", Some(3), false)));
        assert_eq!(of("refund@3-draft"), Some(("refund", Some(3), true)));
        for bad in
            ["refund@", "refund@x", "refund@-draft", "refund@3-drafts", "refund@+3", "refund@03", "refund@0"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_leaves_the_archive_and_nothing_becomes_a_draft() {
        for from in VersionState::ALL {
            assert!(!VersionState::Archived.may_become(from));
            assert!(!from.may_become(VersionState::Draft));
            assert!(!from.may_become(from));
            assert_eq!(VersionState::parse(from.as_str()), Some(from));
        }
    }
}
