//! `tidemill backup create`.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tidemill_scheduler::Plans;
use tidemill_store::backup::{self, Created, Options};

use super::super::verify::Known;
use super::files::{self, Draft};
use super::seal::{SealArguments, Sink};
use super::{counted, of_backup};
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::progress;

/// Write a backup of the whole pool while it works
///
/// Definitions, services, cron entries, jobs, runs with their audits, dead letters; compressed, and encrypted if a key or a passphrase is
/// given. Only reads from Redis. The file has its name only when it is complete.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill backup create --to /backups
  tidemill backup create --to /backups --results --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  tidemill backup create --to /backups --passphrase-file /etc/tidemill/backup-passphrase")]
pub(crate) struct Arguments {
    /// The folder that the file goes to, named by namespace and moment
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
    /// Results of jobs and runs, too
    #[arg(long)]
    results: bool,
    #[command(flatten)]
    seal: SealArguments,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let encryptor = arguments.seal.encryptor()?;
    let begun_ms = context.store.home().now_ms().await?;
    let name = files::name_of(context.store.namespace(), begun_ms, encryptor.is_some());
    let path = arguments.to.join(name);
    let sink = Sink::new(Draft::new(path.clone())?, encryptor)?;
    let spinner = progress::spinner(context.output, "backing up");
    let known = Known::new(Arc::new(Plans::new(context.store.home().clone())));
    let options = Options { results: arguments.results };
    let created = backup::create(&context.store, &known, sink, options).await.map_err(of_backup)?;
    let Created { out, header, counts, left_out } = created;
    let bytes = out.finish()?.keep()?;
    spinner.finish_and_clear();
    let document = json!({
        "file": path, "bytes": bytes, "header": header, "counts": counts, "left_out": left_out,
    });
    let line = format!(
        "{}: {} ({} not ended), {}, {} in flight, {}",
        path.display(),
        counted(counts.runs, "run"),
        counts.live_runs,
        counted(counts.jobs, "job"),
        counted(counts.in_flight, "step"),
        files::size(bytes)
    );
    context.output.told(&document, line);
    if left_out.keys > 0 {
        let names = left_out.names.join(", ");
        let keys = counted(left_out.keys, "key");
        Output::note(&format!("note: {keys} of a kind that this version does not know left out: {names}"));
    }
    if left_out.runs.is_empty() {
        return Ok(());
    }
    let runs = left_out.runs.iter().take(10).map(|(id, why)| format!("{id} ({why})"));
    let runs = runs.collect::<Vec<_>>().join(", ");
    let count = counted(left_out.runs.len() as u64, "run");
    Err(Error::failed("incomplete", format!("{count} could not be read and left out of the backup: {runs}")))
}
