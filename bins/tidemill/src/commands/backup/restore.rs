//! `tidemill backup restore`.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tidemill_scheduler::{Plans, RunRepair};
use tidemill_store::Store;
use tidemill_store::backup::{self, Restored, Target};

use super::super::service::Who;
use super::super::verify;
use super::seal::OpenArguments;
use super::{counted, of_backup};
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::progress;

/// Put a backup back, into an empty namespace, and verify every run there
///
/// Nobody may work in that namespace yet. The file is read twice: all of it is checked before anything is written. What was in flight
/// becomes work to be claimed; what has ended keeps the time that it had left; live runs' deadlines move by the time that has passed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill backup restore /backups/tm-20261121T213000Z.tidemill
  tidemill backup restore /backups/tm-20261121T213000Z.tidemill --into trial --redis-url redis://127.0.0.1:6380")]
pub(crate) struct Arguments {
    /// The file
    file: PathBuf,
    /// The namespace that it is put into; needed where the settings name another than the backup
    #[arg(long, value_name = "NAMESPACE")]
    into: Option<String>,
    /// Delete everything in that namespace first
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    open: OpenArguments,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let spinner = progress::spinner(context.output, "checking the backup");
    let checked = backup::check(arguments.open.open(&arguments.file)?).map_err(of_backup)?;
    spinner.finish_and_clear();
    let namespace = namespace(context, arguments, &checked.header.namespace)?;
    let partitions = context.settings.partitions;
    if let Some(why) = checked.misfit(partitions) {
        return Err(Error::failed("partitions", why));
    }
    let mut settings = context.settings.clone();
    settings.namespace = namespace;
    let store = Store::new(&settings.redis, &settings.namespace, partitions)?;
    let target = Context { settings, store, output: context.output };
    target.connect().await?;
    let how = if arguments.replace { Target::Replaced } else { Target::Empty };
    let spinner = progress::spinner(context.output, "restoring");
    let input = arguments.open.open(&arguments.file)?;
    let restored = backup::restore(&target.store, input, how).await.map_err(of_backup)?;
    carry_on(&target, &restored).await?;
    spinner.finish_and_clear();
    tell(&target, &restored);
    verify::all(&target).await
}

fn namespace(context: &Context, arguments: &Arguments, made_of: &str) -> Outcome<String> {
    if let Some(into) = &arguments.into {
        return Ok(into.clone());
    }
    let own = context.store.namespace();
    if own == made_of {
        return Ok(own.to_owned());
    }
    Err(Error::usage(format!(
        "the backup is of the namespace {made_of:?} and the settings name {own:?}: say --into {own} if it is to go there"
    )))
}

/// What a run is about to do between two steps stands in no record of it: that is found out as the scheduler's auditor does.
async fn carry_on(target: &Context, restored: &Restored) -> Outcome {
    let plans = Arc::new(Plans::new(target.store.home().clone()));
    let repair = RunRepair::new(target.store.clone(), plans, Who::here().as_str());
    for (partition, run) in &restored.live {
        let partition = &target.store.partitions()[*partition as usize];
        repair.repair(partition, run, true).await.map_err(verify::of_repair)?;
    }
    Ok(())
}

fn tell(target: &Context, restored: &Restored) {
    let document = json!({ "namespace": target.store.namespace(), "restored": restored });
    let repeated = match restored.repeated {
        0 => String::new(),
        repeated => format!(", {repeated} of them written twice"),
    };
    let line = format!(
        "restored into {}: {} ({} not ended, {} in flight), {}{repeated}",
        target.store.namespace(),
        counted(restored.runs, "run"),
        restored.live_runs,
        counted(restored.in_flight, "step"),
        counted(restored.jobs, "job"),
    );
    target.output.told(&document, line);
}
