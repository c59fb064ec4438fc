//! Measures runs of workflows: how many a second and how long each takes, very long ones, and the longest call of a function.
//!
//! Everything is at AOF everysec, with real programs, one worker and one scheduler, and a client that asks for a run when one has
//! told its end. A run that does not succeed ends the measure.

mod long;
mod modes;
mod requests;
mod shape;
mod sheet;
mod stalls;
mod throughput;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::conditions::Conditions;
use crate::{report, say};
use sheet::Sheet;

/// What to show, and where.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Smaller and shorter, about a minute in all: to see that everything works, not to judge by
    #[arg(long)]
    quick: bool,
    /// Only these subjects
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    only: Vec<Subject>,
    /// A setting of the workers, such as worker.max_parallel=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Puts the tables into this Markdown file, between its markers `workflows`, or makes the file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Runs a second of 1, 3 and 9 steps and of 1 → 10 → 1, at several levels of load
    Throughput,
    /// Runs of 10,000 steps, and a `for_each` of 100,000 items
    Long,
    /// Ten steps of 20 ms, five of them side by side, under each execution mode
    Modes,
}

impl Subject {
    const ALL: &'static [Self] = &[Self::Throughput, Self::Long, Self::Modes];

    async fn show(self, quick: bool, set: &[String]) -> Result<Vec<Sheet>> {
        match self {
            Self::Throughput => throughput::show(quick, set).await,
            Self::Long => long::show(quick, set).await,
            Self::Modes => modes::show(quick, set).await,
        }
    }
}

/// Measures one subject after the other.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut text = Conditions::read(1, arguments.quick).await?.markdown();
    for subject in Subject::ALL {
        if !arguments.only.is_empty() && !arguments.only.contains(subject) {
            continue;
        }
        say(&format!("workflows: {subject:?}"));
        for sheet in Box::pin(subject.show(arguments.quick, &arguments.set)).await? {
            text.push_str(&sheet.markdown());
        }
    }
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    if let Some(file) = &arguments.write {
        report::write(file, report::WORKFLOWS, &text)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(())
}
