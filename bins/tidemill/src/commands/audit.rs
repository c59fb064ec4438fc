//! `tidemill audit`.

use tidemill_protocol::AuditRecord;
use tidemill_store::AuditPage;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::locate::{Found, locate};
use crate::moment::moment;
use crate::table::{Style, printable};

/// List every transition of a run and its steps, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill audit order-42
  tidemill audit order-42 --json | jq 'select(.to == \"failed\")'

The subject @ is the run itself.")]
pub(crate) struct Arguments {
    /// Id of a run
    run: String,
}

/// Stream entries of the audit in one read.
const PAGE: usize = 1_000;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let id = arguments.run;
    let (partition, found) = locate(context, &id).await?;
    match found {
        Found::Run => {}
        Found::Requested => {
            return Err(Error::failed(
                "not_started",
                format!("run {id:?} has not started: it has no audit yet"),
            ));
        }
        Found::Job(_) => {
            return Err(Error::failed("no_audit", format!("{id:?} is a job; only runs are audited")));
        }
    }
    let mut page = AuditPage::default();
    loop {
        let before = page.cursor.clone();
        page = partition.audit_page(&id, before.as_deref(), PAGE).await?;
        show(context, &page.records, before.is_none());
        if page.cursor == before {
            return Ok(());
        }
    }
}

/// Shows records, one a line, with a head if that is wanted.
pub(crate) fn show(context: &Context, records: &[AuditRecord], with_head: bool) {
    let output = context.output;
    if output.is_json() {
        for record in records {
            output.document(record);
        }
        return;
    }
    let mut text = String::new();
    if with_head && !records.is_empty() {
        let head = line((&"SEQ", "AT"), "SUBJECT", ("FROM", "TO"), "TRY", "WHO");
        text.push_str(&output.styled(&head, Style::Bold));
        text.push('\n');
    }
    for record in records {
        let attempt = if record.attempt == 0 { String::new() } else { record.attempt.to_string() };
        let (subject, who) =
            (printable(&record.subject), printable(record.who.as_deref().unwrap_or_default()));
        let moves = (printable(&record.from), printable(&record.to));
        let line = line((&record.seq, &moment(record.at_ms)), &subject, (&moves.0, &moves.1), &attempt, &who);
        text.push_str(&output.styled(&line, Style::of_state(&record.to)));
        text.push('\n');
    }
    output.text(&text);
}

/// Columns of fixed width: pages and lines that come one by one stay aligned.
fn line(
    (seq, at): (&dyn std::fmt::Display, &str),
    subject: &str,
    (from, to): (&str, &str),
    attempt: &str,
    who: &str,
) -> String {
    let line = format!("{seq:>5}  {at:<24}  {subject:<20}  {from:<9}  {to:<9}  {attempt:>3}  {who}");
    line.trim_end().to_owned()
}
