//! The command `tidemill`: runs everything for development, enqueues, inspects, repairs.
//!
//! One file per command in `commands/`; each reads what it needs through [`context::Context`], and says what it found
//! through [`output::Output`], for people or as JSON.

mod catalog;
mod commands;
mod context;
mod error;
mod locate;
mod moment;
mod output;
mod progress;
mod settings;
mod table;
mod tree;
mod waiting;

use clap::Parser;
use tidemill_runtime::exit::Exit;

fn main() -> Exit {
    commands::run(commands::Arguments::parse())
}
