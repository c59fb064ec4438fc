//! The tables of moves as Lua and as a diagram: generated text that is committed and compared by tests.

use crate::state::{RunState, StepState};

/// The Lua that the function library checks moves against.
#[must_use]
pub fn transitions_lua() -> String {
    let table = |name: &str, moves: Vec<(&str, &str)>| {
        let rows: String = moves.iter().map(|(from, to)| format!("  ['{from} {to}'] = true,\n")).collect();
        format!("local {name} = {{\n{rows}}}\n")
    };
    let steps = StepState::MOVES.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let runs = RunState::MOVES.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    format!(
        "-- Generated from the tables in tidemill-protocol (state.rs); do not edit, run its tests with UPDATE=1.\n\n{}{}",
        table("STEP_MOVES", steps),
        table("RUN_MOVES", runs)
    )
}

/// A Mermaid diagram of a table of moves.
fn diagram(first: &str, moves: &[(&str, &str)], ends: &[&str]) -> String {
    let moves: String = moves.iter().map(|(from, to)| format!("    {from} --> {to}\n")).collect();
    let ends: String = ends.iter().map(|end| format!("    {end} --> [*]\n")).collect();
    format!("stateDiagram-v2\n    [*] --> {first}\n{moves}{ends}")
}

/// The page `docs/state-machine.md`.
#[must_use]
pub fn state_machine_page() -> String {
    let words = |moves: &'static [(StepState, StepState)]| {
        moves.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>()
    };
    let step = diagram(
        "pending",
        &words(StepState::MOVES),
        &StepState::ALL.iter().filter(|s| s.is_terminal()).map(|s| s.as_str()).collect::<Vec<_>>(),
    );
    let moves = RunState::MOVES.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>();
    let ends = RunState::ALL.iter().filter(|s| s.is_terminal()).map(|s| s.as_str()).collect::<Vec<_>>();
    let run = diagram("queued", &moves, &ends);
    format!(
        "<!-- Generated from the tables in crates/tidemill-protocol/src/state.rs; do not edit. -->\n\
         # State machine\n\n\
         Every change of state is one of the moves below, made by one atomic call that also writes one audit record. \
         Terminal states have no way out.\n\n\
         ## Steps, items of a `for_each`, plain jobs\n\n```mermaid\n{step}```\n\n\
         `running → ready` is a hand-back at a drain or a reclaim from a dead worker; `parked` costs no attempt; \
         `retrying` waits in Redis until its time.\n\n\
         ## Runs\n\n```mermaid\n{run}```\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{state_machine_page, transitions_lua};

    fn compare(path: &str, wanted: &str) {
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{path} is out of date: run `UPDATE=1 cargo test -p tidemill-protocol`");
    }

    #[test]
    fn the_lua_table_is_the_rust_table() {
        compare("crates/tidemill-store/lua/transitions.lua", &transitions_lua());
    }

    #[test]
    fn the_diagram_is_the_rust_table() {
        compare("docs/state-machine.md", &state_machine_page());
    }
}
