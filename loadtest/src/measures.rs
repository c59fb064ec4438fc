//! The measures, in the order in which a round takes them.

mod calls;
mod ceiling;
mod crash;
mod drain;
mod enqueue;
mod flow;
mod idle;
mod latency;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::Bench;
use crate::report::Figure;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// The bare commands that a job needs
    Ceiling,
    /// Queued no-op jobs to an empty queue: rate, commands, processor time, memory
    Drain,
    /// The same with a stored result per job
    Results,
    /// Jobs taken in: one at a time, pipelined, by HTTP
    Enqueue,
    /// From enqueueing to the start, at 100/s and 1,000/s
    Latency,
    /// 1,000 HTTP calls of 100 ms at once
    Calls,
    /// Runs of five children and their parent
    Flow,
    /// One step to the next in a chain of ten
    HandOver,
    /// SIGKILL of a worker in mid-drain
    Crash,
    /// Programs with nothing to do
    Idle,
}

impl Measure {
    /// All, the ceiling first.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Ceiling,
        Self::Drain,
        Self::Results,
        Self::Enqueue,
        Self::Latency,
        Self::Calls,
        Self::Flow,
        Self::HandOver,
        Self::Crash,
        Self::Idle,
    ];

    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Drain => "drain",
            Self::Results => "results",
            Self::Enqueue => "enqueue",
            Self::Latency => "latency",
            Self::Calls => "calls",
            Self::Flow => "flow",
            Self::HandOver => "hand-over",
            Self::Crash => "crash",
            Self::Idle => "idle",
        }
    }

    /// Whether it is worth a second look with an append-only file.
    pub(crate) const fn depends_on_persistence(self) -> bool {
        match self {
            Self::Ceiling
            | Self::Drain
            | Self::Results
            | Self::Enqueue
            | Self::Latency
            | Self::Flow
            | Self::HandOver => true,
            Self::Calls | Self::Crash | Self::Idle => false,
        }
    }

    /// Takes it once.
    pub(crate) async fn take(self, bench: &mut Bench) -> Result<Vec<Figure>> {
        match self {
            Self::Ceiling => ceiling::take(bench).await,
            Self::Drain => drain::take(bench).await,
            Self::Results => drain::take_with_results(bench).await,
            Self::Enqueue => enqueue::take(bench).await,
            Self::Latency => latency::take(bench).await,
            Self::Calls => calls::take(bench).await,
            Self::Flow => flow::take(bench).await,
            Self::HandOver => flow::take_hand_over(bench).await,
            Self::Crash => crash::take(bench).await,
            Self::Idle => idle::take(bench).await,
        }
    }
}
