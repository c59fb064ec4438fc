//! Measures Tidemill beside the ceiling of the Redis that it runs on.
//!
//! Every measure has a private Redis server and real release programs. A round takes each measure once, the ceiling first, so that
//! shares compare what the same minute of the same machine gave. Nothing here asserts a time: it prints and writes a table.

mod bench;
mod conditions;
mod measures;
mod processor;
mod queue;
mod report;
mod samples;
mod services;
mod stamp;
mod vendor;
mod workflows;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use bench::{Bench, Mode};
use conditions::Conditions;
use measures::Measure;
use report::Report;

/// Measures throughput, latency, memory and recovery of Tidemill on this machine.
///
/// Needs redis-server on PATH and the release programs beside this one: `loadtest/run` builds both and passes its arguments on.
#[derive(Debug, Parser)]
#[command(name = "tidemill-loadtest", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// A tenth of the work and one round: to see that everything works, not to compare
    #[arg(long)]
    quick: bool,
    /// Only these measures (the ceiling is always taken)
    #[arg(long, value_delimiter = ',', value_name = "MEASURE")]
    only: Vec<Measure>,
    /// Rounds; the table shows medians with least and most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Persistence of Redis
    #[arg(long, value_enum, default_value_t = Persistence::Both)]
    persistence: Persistence,
    /// A setting of the workers that are measured, such as worker.max_batch=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Puts the table into this Markdown file, between its markers, or makes the file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the service that answers every HTTP request after a while (used by the measures)
    Vendor {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:0")]
        addr: SocketAddr,
        /// When it answers, in milliseconds
        #[arg(long, default_value_t = 100)]
        answer_after_ms: u64,
    },
    /// Shows what admission does: limits, breakers, retries and caches, against a referee that counts every violation
    Services(services::Arguments),
    /// Measures runs of workflows: how many a second, very long ones, the longest call of a function
    Workflows(workflows::Arguments),
    /// Runs several workers in one process (used by `services`)
    WorkerHost(services::HostArguments),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Persistence {
    /// Nothing on disk
    Off,
    /// Append-only file, fsync every second
    Aof,
    /// One after the other
    Both,
}

impl Persistence {
    const fn modes(self) -> &'static [Mode] {
        match self {
            Self::Off => &[Mode::Off],
            Self::Aof => &[Mode::Aof],
            Self::Both => &[Mode::Off, Mode::Aof],
        }
    }
}

/// Tells a person something while the measures run.
fn say(text: &str) {
    // whoever closed the pipe does not want to know
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut report = Report::new(Conditions::read(rounds, arguments.quick).await?);
    for round in 1..=rounds {
        for mode in arguments.persistence.modes() {
            let mut ceiling = None;
            for measure in Measure::ALL {
                let wanted = arguments.only.is_empty() || arguments.only.contains(measure);
                let shown = *mode == Mode::Off
                    || measure.depends_on_persistence()
                    || arguments.persistence == Persistence::Aof;
                if *measure != Measure::Ceiling && !(wanted && shown) {
                    continue;
                }
                say(&format!("round {round} of {rounds}, persistence {}: {}", mode.name(), measure.name()));
                let mut bench = Bench::start(*mode, arguments.quick, ceiling, &arguments.set).await?;
                let figures = measure.take(&mut bench).await.with_context(|| {
                    format!("measuring {} with persistence {}", measure.name(), mode.name())
                })?;
                for figure in &figures {
                    say(&format!("    {}: {}", figure.row.label, figure.row.unit.show(figure.value)));
                }
                ceiling = bench.ceiling;
                report.add(*mode, figures);
            }
        }
    }
    Ok(report)
}

async fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Some(Command::Vendor { addr, answer_after_ms }) => {
            return vendor::serve(addr, std::time::Duration::from_millis(answer_after_ms)).await;
        }
        Some(Command::Workflows(workflows)) => return workflows::run(workflows).await,
        Some(Command::Services(services)) => return services::run(services).await,
        Some(Command::WorkerHost(host)) => return services::host(host).await,
        None => {}
    }
    let report = measure(&arguments).await?;
    let text = report.markdown();
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    if let Some(file) = &arguments.write {
        report::write(file, report::MAIN, &text)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(arguments))
}
