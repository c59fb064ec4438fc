//! `tidemill backup verify`.

use std::path::PathBuf;

use serde_json::json;
use tidemill_store::backup::{self, Checked};

use super::seal::OpenArguments;
use super::{counted, of_backup};
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment;
use crate::table::{Cell, Table};

/// Read a whole backup and check it, without any Redis
///
/// Checks the digest and the order of its records, and folds the audit of every run: the stored state must be the one that it leads to.
/// Exit code 1 when anything does not fit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill backup verify /backups/tm-20261121T213000Z.tidemill")]
pub(crate) struct Arguments {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    open: OpenArguments,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let checked = backup::check(arguments.open.open(&arguments.file)?).map_err(of_backup)?;
    if context.output.is_json() {
        context.output.document(&json!({
            "file": arguments.file, "header": checked.header, "counts": checked.counts,
            "faults": checked.faults, "more": checked.more,
        }));
    } else {
        told(context, &checked);
    }
    judged(&checked)
}

fn told(context: &Context, checked: &Checked) {
    let (header, counts) = (&checked.header, &checked.counts);
    let mut table = Table::new(&["RUN", "WHAT DOES NOT FIT"]);
    for fault in &checked.faults {
        table.row(vec![Cell::new(&fault.run), Cell::new(&fault.what)]);
    }
    if !table.is_empty() {
        context.output.table(&table);
    }
    context.output.line(format!(
        "whole: namespace {}, {}, of {}, by tidemill {}; {} ({} not ended), {} folded, {}",
        header.namespace,
        counted(u64::from(header.partitions), "partition"),
        moment::moment(header.created_ms),
        header.version,
        counted(counts.runs, "run"),
        counts.live_runs,
        counted(counts.audit_records, "audit record"),
        counted(counts.jobs, "job"),
    ));
}

/// Runs that do not fit their audit are a failure: they stood so in Redis.
fn judged(checked: &Checked) -> Outcome {
    if checked.faults.is_empty() {
        return Ok(());
    }
    let faults = checked.faults.len() as u64 + checked.more;
    let message = format!(
        "the file is as it was written, but {} in it: the runs stood so in Redis; `tidemill verify` there tells more",
        if faults == 1 { "1 thing does not fit".to_owned() } else { format!("{faults} things do not fit") }
    );
    Err(Error::failed("drift", message))
}
