//! Shows what admission does to the limits of a service that many workers share.
//!
//! Each subject has a private Redis, real programs and, in place of the service, the test kit's referee: it judges by an exact log
//! of what came and owes nothing to Tidemill's arithmetic. Subjects print their conditions, what is aimed at and what was seen.

mod accuracy;
mod blocking;
mod breaker;
mod cache;
mod cost;
mod disturbance;
mod fairness;
mod hedging;
mod host;
mod load;
mod pool;
mod retries;
mod table;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::conditions::Conditions;
use crate::{report, say};
pub(crate) use host::{HostArguments, host};
use table::{Line, Table};

/// What to show, and where.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Smaller and shorter, about three minutes in all: to see that everything works, not to judge by
    #[arg(long)]
    quick: bool,
    /// Only these subjects
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    only: Vec<Subject>,
    /// Puts the table into this Markdown file, between its markers `services`, or makes the file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Something that admission has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Limits hold and are used, with 1, 8 and 64 workers
    Accuracy,
    /// The same while workers are killed, clocks are wrong, Redis restarts, limits change
    Disturbance,
    /// Round trips per call, admissions a second of one Redis core
    Cost,
    /// A tenant with ten jobs beside one with a hundred thousand
    Fairness,
    /// Jobs of one service behind those of another that is limited
    Blocking,
    /// A service that fails for a while
    Breaker,
    /// A service that fails half of its calls
    Retries,
    /// A service whose latency has a heavy tail
    Hedging,
    /// Answers that are kept
    Cache,
}

impl Subject {
    const ALL: &'static [Self] = &[
        Self::Accuracy,
        Self::Disturbance,
        Self::Cost,
        Self::Fairness,
        Self::Blocking,
        Self::Breaker,
        Self::Retries,
        Self::Hedging,
        Self::Cache,
    ];

    async fn show(self, quick: bool) -> Result<Vec<Line>> {
        match self {
            Self::Accuracy => Box::pin(accuracy::show(quick)).await,
            Self::Disturbance => Box::pin(disturbance::show(quick)).await,
            Self::Cost => cost::show(quick).await,
            Self::Fairness => fairness::show(quick).await,
            Self::Blocking => blocking::show(quick).await,
            Self::Breaker => breaker::show(quick).await,
            Self::Retries => retries::show(quick).await,
            Self::Hedging => hedging::show(quick).await,
            Self::Cache => cache::show(quick).await,
        }
    }
}

/// Shows a subject, or says why it cannot be shown: the others can be all the same.
async fn attempt(subject: Subject, quick: bool) -> Vec<Line> {
    say(&format!("services: {subject:?}"));
    match subject.show(quick).await {
        Ok(lines) => lines,
        Err(error) => {
            let what = (format!("{subject:?}"), "");
            vec![Line::new(what, "", format!("not shown: {error:#}"), Some(false))]
        }
    }
}

/// Shows the subjects one after the other.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let conditions = Conditions::read(1, arguments.quick).await?;
    let mut table = Table::new(conditions);
    let is_wanted = |subject: &Subject| arguments.only.is_empty() || arguments.only.contains(subject);
    let mut wanted: Vec<Subject> = Subject::ALL.iter().copied().filter(is_wanted).collect();
    // the two that take long disturb each other little
    let together = [Subject::Accuracy, Subject::Disturbance];
    if arguments.quick && wanted.starts_with(&together) {
        wanted.drain(..together.len());
        let (first, second) = tokio::join!(
            Box::pin(attempt(Subject::Accuracy, true)),
            Box::pin(attempt(Subject::Disturbance, true))
        );
        first.into_iter().chain(second).for_each(|line| table.add(line));
    }
    for subject in wanted {
        Box::pin(attempt(subject, arguments.quick)).await.into_iter().for_each(|line| table.add(line));
    }
    let text = table.markdown();
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    if let Some(file) = &arguments.write {
        report::write(file, report::SERVICES, &text)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(())
}
