//! Switching the pool's execution mode.

use super::{Function, FunctionCall};
use crate::{Error, Partition};

pub(super) const SWITCH_MODE: Function = Function {
    name: "tm1_switch_mode",
    keys: &["mode", "changes"],
    args: &["who", "why", "kind", "to", "seen"],
};

/// A switch that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) who: &'a str,
    pub(crate) why: &'a str,
    pub(crate) kind: &'a str,
    /// Empty: the mode before.
    pub(crate) to: &'a str,
    /// The number of switches that the caller has seen.
    pub(crate) seen: Option<u64>,
}

/// What became of it: the code, the words of the mode before and now, and the number of switches.
pub(crate) type Answer = (i64, String, String, u64);

impl Partition {
    pub(crate) async fn ask_for_mode(&self, wanted: &Wanted<'_>) -> Result<Answer, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&SWITCH_MODE, 2);
        call.key(&keys.mode()).key(&keys.mode_changes());
        call.arg(wanted.who).arg(wanted.why).arg(wanted.kind).arg(wanted.to);
        match wanted.seen {
            Some(seen) => call.arg(seen),
            None => call.arg(""),
        };
        self.link().query("switching the execution mode", call.command()).await
    }
}
