//! The tables of moves as Lua and as a diagram: generated text that is committed and compared by tests.

use std::fmt::Write;

use crate::state::{RunState, StepState};

/// The Lua that the function library checks moves against.
#[must_use]
pub fn transitions_lua() -> String {
    let mut lua = "-- Generated from the tables in tidemill-protocol (state.rs); do not edit, run its tests with UPDATE=1.\n\n".to_owned();
    let mut table = |name: &str, moves: Vec<(&str, &str)>| {
        let _ = writeln!(lua, "local {name} = {{");
        for (from, to) in moves {
            let _ = writeln!(lua, "  ['{from} {to}'] = true,");
        }
        let _ = writeln!(lua, "}}");
    };
    table("STEP_MOVES", StepState::MOVES.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect());
    table("RUN_MOVES", RunState::MOVES.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect());
    lua
}

/// A Mermaid diagram of a table of moves.
#[must_use]
fn diagram(first: &str, moves: &[(&str, &str)], ends: &[&str]) -> String {
    let mut text = format!("stateDiagram-v2\n    [*] --> {first}\n");
    for (from, to) in moves {
        let _ = writeln!(text, "    {from} --> {to}");
    }
    for end in ends {
        let _ = writeln!(text, "    {end} --> [*]");
    }
    text
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
