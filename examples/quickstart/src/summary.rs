//! What was done, read back from the pool and from the vendor, for people and as JSON.

mod print;
mod timing;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tidemill_protocol::AuditRecord;
use tidemill_store::Partition;
use tidemill_workflow::{Action, Plan};

use crate::pool::CALL_TIMEOUT_MS;
use crate::records::Record;
use crate::vendor::VendorCounts;
use crate::work::{Answer, Returned};

pub(crate) use print::{next, text};
use timing::Timing;

/// How many runs are read at once.
const AT_ONCE: usize = 32;
/// How many entries of an audit are read at once.
const PAGE: usize = 500;

/// How many dead letters are read; there are about as many as the data set has faulty records.
const MAX_LETTERS: usize = 1_000;
/// The code of a run whose input the workflow's schema refuses.
const REFUSED: &str = "invalid_input";

/// Names of the files in the data folder.
pub(crate) const RESULTS: &str = "results.ndjson";
/// The rendered report.
pub(crate) const REPORT: &str = "report.md";
/// The summary as JSON.
pub(crate) const SUMMARY: &str = "summary.json";

/// The facts of one quickstart.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Runs asked for.
    pub(crate) records: usize,
    /// Worker processes.
    pub(crate) workers: usize,
    /// Runs by state.
    pub(crate) runs: BTreeMap<String, u64>,
    /// Results that came a second time.
    pub(crate) results_doubled: u64,
    /// Steps by state.
    pub(crate) steps: BTreeMap<String, u64>,
    /// Attempts of steps, first ones and retries.
    pub(crate) attempts: u64,
    /// Attempts after the first.
    pub(crate) retries: u64,
    /// Dead letters: what could not be done, and why.
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// Calls that the HTTP client sent again at once, within an attempt: a GET may be, when a kept connection breaks before
    /// any answer.
    pub(crate) sent_again: u64,
    /// What the vendor saw.
    pub(crate) vendor: VendorCounts,
    /// From the first XADD to the last result, in milliseconds.
    pub(crate) wall_ms: u64,
    /// All attempts of all steps added up, in milliseconds, as long as they took side by side.
    pub(crate) step_ms: u64,
    /// What waiting for the vendor alone would take, one call after the other, in milliseconds.
    pub(crate) sequential_ms: u64,
    /// How long a run took from its start to its end, in milliseconds: half of them at most.
    pub(crate) run_p50_ms: u64,
    /// 99 of 100 at most.
    pub(crate) run_p99_ms: u64,
    /// The slowest.
    pub(crate) run_max_ms: u64,
}

/// Why a run could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeadLetter {
    /// The run.
    pub(crate) id: String,
    /// Stable word: why.
    pub(crate) code: String,
    /// A sentence: why.
    pub(crate) reason: String,
}

impl Summary {
    /// Reads back every run with its audit.
    pub(crate) async fn read(
        home: &Partition,
        plan: &Plan,
        records: &[Record],
        returned: &Returned,
        vendor: VendorCounts,
    ) -> Result<Self> {
        let mut summary = Self {
            records: records.len(),
            results_doubled: returned.doubled,
            dead_letters: dead_letters(home).await?,
            vendor,
            wall_ms: tidemill_runtime::clock::milliseconds(returned.wall),
            ..Self::default()
        };
        for answer in &returned.answers {
            *summary.runs.entry(answer.state.clone()).or_default() += 1;
        }
        let reads = stream::iter(records).map(|record| timing_of(home, plan, &record.id));
        let timings: Vec<Timing> = reads.buffer_unordered(AT_ONCE).try_collect().await?;
        let (mut durations, mut vendor_attempts) = (Vec::with_capacity(timings.len()), 0);
        for timing in timings {
            for (state, count) in timing.ended {
                *summary.steps.entry(state).or_default() += count;
            }
            summary.attempts += timing.attempts;
            summary.retries += timing.retries;
            vendor_attempts += timing.vendor_attempts;
            summary.step_ms += timing.busy_ms;
            durations.extend(timing.run_ms);
        }
        summary.sequential_ms = summary.vendor.sequential_ms(CALL_TIMEOUT_MS);
        summary.sent_again = summary.vendor.calls.saturating_sub(vendor_attempts);
        durations.sort_unstable();
        summary.run_p50_ms = timing::percentile(&durations, 50);
        summary.run_p99_ms = timing::percentile(&durations, 99);
        summary.run_max_ms = timing::percentile(&durations, 100);
        Ok(summary)
    }

    /// How many times as fast as waiting for the vendor alone, one call after the other.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a short demonstration")]
    pub(crate) fn speed_up(&self) -> f64 {
        self.sequential_ms as f64 / self.wall_ms.max(1) as f64
    }

    /// Whether every run ended well, once; those apart whose record the workflow refuses.
    pub(crate) fn is_clean(&self) -> bool {
        let refused = self.dead_letters.iter().filter(|letter| letter.code == REFUSED).count();
        let succeeded = self.runs.get("succeeded").copied().unwrap_or(0);
        succeeded + refused as u64 == self.records as u64
            && self.results_doubled == 0
            && self.vendor.repeated_after_success == 0
    }

    /// Writes results, report and this summary into `folder`.
    pub(crate) fn write(&self, folder: &Path, answers: &[Answer]) -> Result<()> {
        let lines: String = answers.iter().map(|answer| format!("{}\n", answer.text)).collect();
        write(folder, RESULTS, &lines)?;
        write(folder, REPORT, &report(answers))?;
        let mut json = serde_json::to_value(self)?;
        json["speed_up"] = serde_json::json!((self.speed_up() * 10.0).round() / 10.0);
        write(folder, SUMMARY, &format!("{json:#}\n"))
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The table of all rendered lines, best places first.
fn report(answers: &[Answer]) -> String {
    let mut lines: Vec<(f64, &str)> = answers
        .iter()
        .filter_map(|answer| Some((answer.output["score"].as_f64()?, answer.output["report"].as_str()?)))
        .collect();
    lines.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let head = "# Places for a warehouse\n\nWorked out by the quickstart from coordinates alone; the vendor's climate is a rough \
                formula.\n\n| place | score | mean | nearest port | surveyor | seal |\n|---|---|---|---|---|---|\n";
    lines.iter().fold(head.to_owned(), |text, (_, line)| text + line.trim_end() + "\n")
}

async fn dead_letters(home: &Partition) -> Result<Vec<DeadLetter>> {
    let letters = home.letters(None, MAX_LETTERS).await?.into_iter();
    let read = letters.map(|letter| DeadLetter {
        id: letter.field("id").unwrap_or_default(),
        code: letter.code,
        reason: letter.reason,
    });
    Ok(read.collect())
}

/// Whether a step of the plan calls one of the vendor's tools.
fn calls_vendor(plan: &Plan, step: &str) -> bool {
    let step = plan.step_index(step).and_then(|step| plan.step(step));
    step.is_some_and(|step| matches!(&step.action, Action::Tool { tool } if tool.starts_with("vendor.")))
}

async fn timing_of(home: &Partition, plan: &Plan, run: &str) -> Result<Timing> {
    let (mut records, mut cursor): (Vec<AuditRecord>, Option<String>) = (Vec::new(), None);
    loop {
        let page = home.audit_page(run, cursor.as_deref(), PAGE).await?;
        if page.records.is_empty() {
            return Ok(Timing::of(&records, |step| calls_vendor(plan, step)));
        }
        records.extend(page.records);
        cursor = page.cursor;
    }
}
