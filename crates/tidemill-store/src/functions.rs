//! One typed twin per function of the library, each beside the names that its Lua gives to keys and arguments.

mod admission;
mod budget;
mod cache;
mod deferral;
mod duties;
mod groups;
mod jobs;
mod lines;
mod mending;
mod modes;
mod operations;
mod runs;
mod services;
mod steps;
mod versions;
mod waits;

pub(crate) use admission::enqueued;
pub use admission::{Admission, Enqueued};
pub use budget::{BudgetField, Spent};
pub use deferral::{DeferState, Deferral, Due, Held, Released, Slot};
pub use duties::{Beat, Firing};
pub use groups::{Entered, Entrance, GroupCount, GroupMember, GroupRow, GroupVerdict, RefusedRun, WhenFull};
pub use jobs::{Burial, Completion};
pub use lines::{CalledUp, Parking};
pub use mending::Overlooked;
pub(crate) use modes::Wanted as ModeWanted;
pub use operations::{Gift, Given};
pub use runs::{EndRun, Expansion, FinishRun, GivenEnd, NewRun, RootStep, Started, StopRun};
pub use services::{
    Answer, Author, CallOutcome, CallReport, CallRequest, Control, Correction, Exchange, Exchanged, Forecast,
    Hindrance, Notice, Outlook, TierUse,
};
pub use steps::{Dependent, ItemOutcome, Mode, Settled, StepOutcome};
pub(crate) use versions::{Step as VersionStep, Stepped as VersionStepped};
pub use waits::{
    Closing, Content, Delivered, Letter as StepLetter, MOST_EARLY_SIGNALS, NewSignal, NextClosing, Signalled,
    Waited, Waiting,
};

use redis::{Cmd, ToRedisArgs};

/// A function's name and what its Lua calls the fixed keys and arguments; a test compares them with the Lua.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    /// The published name.
    pub(crate) name: &'static str,
    /// The fixed keys, in order.
    pub(crate) keys: &'static [&'static str],
    /// The fixed arguments, in order.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that compares it with the Lua"))]
    pub(crate) args: &'static [&'static str],
}

/// All of them, for the test and the documentation.
#[cfg(test)]
pub(crate) const ALL: &[Function] = &[
    admission::ENQUEUE,
    admission::ACCEPT,
    deferral::DEFER,
    deferral::PROMOTE,
    lines::PARK,
    lines::CALL_UP,
    deferral::RELEASE,
    deferral::RECLAIM,
    duties::BEAT,
    duties::FORGET,
    duties::CANCEL,
    duties::FIRE,
    duties::REPLAY,
    duties::REPAIR,
    mending::MEND,
    jobs::COMPLETE,
    jobs::BURY,
    runs::START,
    runs::FINISH,
    runs::END_RUN,
    runs::EXPAND,
    steps::SETTLE_STEP,
    steps::SETTLE_ITEM,
    services::ADMIT,
    services::FORECAST,
    services::DEFINE,
    services::CONTROL,
    cache::GET,
    cache::PUT,
    cache::DROP,
    cache::CLEAR,
    versions::MOVE_VERSION,
    budget::SPEND,
    groups::ENTER,
    groups::LEAVE,
    groups::REFUSE,
    modes::SWITCH_MODE,
    operations::GIVE,
    operations::PAUSE,
    waits::WAIT,
    waits::DELIVER,
    waits::SIGNAL,
    waits::MAIL,
    waits::CLOSE,
];

/// A call being written: first all keys, then the arguments.
pub(crate) struct FunctionCall {
    command: Cmd,
    keys_left: usize,
}

impl FunctionCall {
    /// A call with this many keys, the fixed ones included.
    pub(crate) fn new(function: &Function, keys: usize) -> Self {
        let mut command = Cmd::with_capacity(16 + keys * 3, 256 + keys * 48);
        command.arg("FCALL").arg(function.name).arg(keys);
        Self { command, keys_left: keys }
    }

    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        debug_assert!(self.keys_left > 0, "more keys than announced");
        self.keys_left -= 1;
        self.command.arg(key);
        self
    }

    pub(crate) fn arg<T: ToRedisArgs>(&mut self, arg: T) -> &mut Self {
        debug_assert!(self.keys_left == 0, "fewer keys than announced");
        self.command.arg(arg);
        self
    }

    pub(crate) fn command(&self) -> &Cmd {
        &self.command
    }
}

#[cfg(test)]
mod tests {
    use super::ALL;

    fn lua(name: &str) -> String {
        let file = name.trim_start_matches("tm1_");
        let path = format!("{}/lua/{file}.lua", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn names_before(text: &str, what: &str) -> Vec<String> {
        // the published function is the last `local function` of its file
        let body = text.rsplit_once("\nlocal function").map_or(text, |(_, body)| body);
        let line = body.lines().find(|line| {
            line.contains(&format!("= unpack({what}")) || line.contains(&format!("= {what}[1]"))
        });
        let Some(line) = line else { return Vec::new() };
        let (names, _) = line.trim().trim_start_matches("local ").split_once('=').unwrap();
        names.split(',').map(|name| name.trim().to_owned()).collect()
    }

    #[test]
    fn each_twin_names_its_keys_and_arguments_as_the_lua_does() {
        for function in ALL {
            let text = lua(function.name);
            assert_eq!(names_before(&text, "keys"), function.keys, "keys of {}", function.name);
            assert_eq!(names_before(&text, "args"), function.args, "args of {}", function.name);
        }
    }

    #[test]
    fn every_published_function_has_a_twin() {
        let register =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/register.lua")).unwrap();
        let published = register.matches("function_name = 'tm1_").count();
        assert_eq!(published, ALL.len() + 1, "each function but tm1_version has one twin in ALL");
        for function in ALL {
            assert!(register.contains(&format!("'{}'", function.name)), "{}", function.name);
        }
    }
}
