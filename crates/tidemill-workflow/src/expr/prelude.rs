//! The definitions that expressions can call, and which of them a given expression needs.
//!
//! Compiling the whole prelude takes about a millisecond, and most expressions call nothing of it: so each one is
//! compiled with the closure of what it calls, which is usually empty.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use jaq_core::load::parse::Def;

use super::natives;
use super::uses::{self, Calls};

/// Definitions of jaq that are left out: they read the clock or the environment, write logs or end the process, or are
/// replaced by natives with clearer errors.
const LEFT_OUT: &[&str] = &[
    "stderr",
    "debug",
    "halt",
    "halt_error",
    "todate",
    "fromdate",
    "nan",
    "infinite",
    "isnan",
    "isinfinite",
    "logb",
    "significand",
    "drem",
    "nexttoward",
    "scalb",
    "gamma",
    "from_entries",
    "with_entries",
    "finites",
];

struct Entry {
    def: Def<&'static str>,
    calls: Calls<'static>,
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let own = jaq_core::load::parse(include_str!("prelude.jq"), |parser| parser.defs()).unwrap_or_default();
    let of_jaq = jaq_core::defs().chain(jaq_std::defs()).filter(|def| !LEFT_OUT.contains(&def.name));
    of_jaq.chain(own).map(|def| Entry { calls: uses::of_definition(&def), def }).collect()
});

/// Where the definitions of a name stand, with their number of arguments.
static BY_NAME: LazyLock<HashMap<&'static str, Vec<(usize, usize)>>> = LazyLock::new(|| {
    let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
    for (at, entry) in ENTRIES.iter().enumerate() {
        by_name.entry(entry.def.name).or_default().push((entry.def.args.len(), at));
    }
    by_name
});

/// What an expression needs to be compiled.
pub(super) struct Needed {
    pub(super) defs: Vec<Def<&'static str>>,
    /// The natives that are called, directly or by a definition, with their number of arguments.
    pub(super) natives: BTreeSet<(&'static str, usize)>,
}

/// The definitions that `calls` lead to, in the order in which they must be loaded.
pub(super) fn needed(calls: &Calls<'_>) -> Needed {
    let mut chosen = BTreeSet::new();
    let mut natives = BTreeSet::new();
    let mut open: Vec<usize> = Vec::new();
    for &(name, arity) in calls {
        open.extend(find(name, arity));
        natives.extend(natives::find(name, arity));
    }
    while let Some(at) = open.pop() {
        let Some(entry) = ENTRIES.get(at).filter(|_| chosen.insert(at)) else { continue };
        for &(name, arity) in &entry.calls {
            natives.extend(natives::find(name, arity));
            open.extend(find(name, arity));
        }
    }
    let defs = chosen.iter().filter_map(|at| ENTRIES.get(*at)).map(|entry| entry.def.clone()).collect();
    Needed { defs, natives }
}

/// Where the definitions of this name and number of arguments stand.
fn find(name: &str, arity: usize) -> impl Iterator<Item = usize> {
    let all = BY_NAME.get(name).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(move |(args, _)| *args == arity).map(|(_, at)| *at)
}

/// The nearest callable names to one that does not exist.
pub(super) fn suggestion(name: &str) -> Option<String> {
    let names = BY_NAME.keys().copied().chain(natives::names());
    crate::nearest::nearest(name, names).map(str::to_owned)
}
