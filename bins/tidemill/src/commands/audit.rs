//! `tidemill audit`.

use tidemill_protocol::AuditRecord;
use tidemill_store::AuditPage;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::locate::{Found, locate};
use crate::moment::moment;
use crate::table::{Cell, Style, Table};

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

/// Shows records, as lines of one table.
pub(crate) fn show(context: &Context, records: &[AuditRecord], with_head: bool) {
    if context.output.is_json() {
        for record in records {
            context.output.document(record);
        }
        return;
    }
    if records.is_empty() {
        return;
    }
    let head: [&'static str; 7] = if with_head {
        [">SEQ", "AT", "SUBJECT", "FROM", "TO", ">TRY", "WHO"]
    } else {
        [">", "", "", "", "", ">", ""]
    };
    let mut table = Table::new(&head);
    for record in records {
        table.row(vec![
            record.seq.into(),
            Cell::new(moment(record.at_ms)),
            Cell::new(&record.subject),
            Cell::new(&record.from).style(Style::Dim),
            Cell::state(&record.to),
            if record.attempt == 0 { Cell::default() } else { record.attempt.into() },
            Cell::new(record.who.as_deref().unwrap_or_default()),
        ]);
    }
    context.output.table(&table);
}
