//! What a person sees while the work goes on: two bars on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Elsewhere than on a terminal: one line per so many percent.
const LINE_PER_CENT: usize = 25;

/// Progress of runs and steps, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    runs: ProgressBar,
    steps: ProgressBar,
    steps_per_run: usize,
    all: usize,
    plain: Option<AtomicUsize>,
}

/// Says a line on standard error. A closed standard error is no reason to stop.
pub(crate) fn say(line: &str) {
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}

impl Progress {
    /// For so many runs of so many steps each.
    pub(crate) fn new(runs: usize, steps_per_run: usize) -> Self {
        let bars = MultiProgress::new();
        let bar = |name: &'static str, length: usize| {
            let style = ProgressStyle::with_template("  {prefix:6} {wide_bar} {pos:>6}/{len}  {elapsed:>4}");
            let bar = bars.add(ProgressBar::new(length as u64)).with_prefix(name);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        Self {
            runs: bar("runs", runs),
            steps: bar("steps", runs * steps_per_run),
            steps_per_run,
            all: runs,
            plain: (!io::stderr().is_terminal()).then(AtomicUsize::default),
        }
    }

    /// So many runs have ended, and so many steps of those that have not.
    pub(crate) fn show(&self, runs: usize, steps_elsewhere: u64) {
        self.runs.set_position(runs as u64);
        self.steps.set_position((runs * self.steps_per_run) as u64 + steps_elsewhere);
        if let Some(said) = &self.plain {
            let share = runs * 100 / self.all.max(1) / LINE_PER_CENT;
            if said.swap(share, Ordering::Relaxed) < share {
                say(&format!("  {runs} of {} runs have ended", self.all));
            }
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        self.steps.finish_and_clear();
        self.runs.finish_and_clear();
    }
}
