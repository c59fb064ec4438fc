//! Which version a start gets.

use super::{VersionState, WorkflowTarget};
use crate::{Error, Partition};

/// The version that a start gets, or why it gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startable {
    /// This one.
    Version {
        /// The version.
        version: u32,
        /// Where it stands; deprecated is worth a warning.
        state: VersionState,
    },
    /// No such workflow, or no such version of it, is published.
    Unknown,
    /// The workflow has versions, and none of them is active: one must be named.
    NoneActive,
    /// It is a draft, which `name@version-draft` alone starts.
    Draft,
    /// It is archived: nothing starts it.
    Archived,
}

impl Startable {
    /// The stable word for what is refused; `None` for a version.
    #[must_use]
    pub const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Version { .. } => None,
            Self::Unknown => Some("unknown_workflow"),
            Self::NoneActive => Some("no_active_version"),
            Self::Draft => Some("workflow_draft"),
            Self::Archived => Some("workflow_archived"),
        }
    }

    /// What is wrong with starting `target` and what to do about it, or what is worth knowing of the version that it gets.
    #[must_use]
    pub fn sentence(self, target: &str) -> Option<String> {
        let name = target.rsplit_once('@').map_or(target, |(name, _)| name);
        match self {
            Self::Version { state: VersionState::Deprecated, version } => Some(format!(
                "{name}@{version} is deprecated and may be archived soon; start {name:?} for its active version"
            )),
            Self::Version { state: VersionState::Draft, version } => {
                Some(format!("{name}@{version} is a draft"))
            }
            Self::Version { state: VersionState::Active | VersionState::Archived, .. } => None,
            Self::Unknown => Some(format!(
                "workflow {target:?} is not published; publish it with `tidemill workflow publish`"
            )),
            Self::NoneActive => Some(format!(
                "workflow {name:?} has no active version; name one ({name}@1), or activate one with `tidemill workflow activate`"
            )),
            Self::Draft => Some(format!(
                "{target} is a draft: start {target}{} to try it, or activate it with `tidemill workflow activate {target}`",
                WorkflowTarget::DRAFT
            )),
            Self::Archived => Some(format!(
                "{target} is archived and is not started any more; start {name:?} for its active version"
            )),
        }
    }
}

impl Partition {
    /// The version that a start of this target gets: the newest active one by a plain name, else the one that is named, if it may
    /// be started so.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or the stored state is not one that Tidemill writes ([`Error::Damaged`]).
    pub async fn to_start(&self, target: WorkflowTarget<'_>) -> Result<Startable, Error> {
        let WorkflowTarget { name, version, draft } = target;
        let Some(version) = version else {
            return Ok(match self.newest(name).await? {
                Some(version) => Startable::Version { version, state: VersionState::Active },
                None if self.versions(name).await?.is_empty() => Startable::Unknown,
                None => Startable::NoneActive,
            });
        };
        Ok(match self.version_state(name, version).await? {
            None => Startable::Unknown,
            Some(VersionState::Archived) => Startable::Archived,
            Some(VersionState::Draft) if !draft => Startable::Draft,
            Some(state) => Startable::Version { version, state },
        })
    }
}
