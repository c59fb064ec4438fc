//! The life of a workflow's version.

use super::{Function, FunctionCall};
use crate::{Error, Partition};

pub(super) const MOVE_VERSION: Function = Function {
    name: "tm1_move_version",
    keys: &["texts", "versions", "newest", "changes"],
    args: &["who", "why", "name", "version", "from", "to", "digest", "text"],
};

/// One step in the life of a version; `from` is `-` for publishing it, which alone needs text and digest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) who: &'a str,
    pub(crate) why: &'a str,
    pub(crate) name: &'a str,
    pub(crate) version: u32,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) text: &'a str,
}

/// What became of it, with the word of the state in which the version is now; `-` where it is not there.
#[derive(Debug)]
pub(crate) enum Stepped {
    Moved,
    Refused(String),
    PublishedBefore(String),
}

impl Partition {
    /// Makes a step, unless the version stands otherwise than the caller saw it.
    pub(crate) async fn step_version(&self, step: &Step<'_>) -> Result<Stepped, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&MOVE_VERSION, 4);
        call.key(&keys.workflow(step.name)).key(&keys.versions(step.name));
        call.key(&keys.workflows()).key(&keys.workflow_changes());
        call.arg(step.who).arg(step.why).arg(step.name).arg(step.version);
        call.arg(step.from).arg(step.to).arg(step.digest).arg(step.text);
        let (answer, state): (i64, String) =
            self.link().query("moving a workflow's version", call.command()).await?;
        Ok(match answer {
            1 => Stepped::Moved,
            2 => Stepped::PublishedBefore(state),
            _ => Stepped::Refused(state),
        })
    }
}
