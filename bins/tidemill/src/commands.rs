//! The commands, one file each, and how they are started.

mod approve;
mod audit;
mod backup;
mod bulk;
mod cancel;
mod completions;
mod cron;
mod dead;
mod dev;
mod enqueue;
mod group;
mod history;
mod library;
mod mode;
mod pause;
mod queues;
mod request;
mod result;
mod retry;
mod run;
mod runs;
mod service;
mod signal;
mod skip;
mod status;
mod tools;
mod verify;
mod why;
mod workers;
mod workflow;

use clap::{Parser, Subcommand};
use tidemill_runtime::cli::{self, CommonArgs, ConfigCommand};
use tidemill_runtime::exit::Exit;
use tidemill_runtime::settings::{self, SettingsError, Sources};
use tidemill_runtime::{log, program};

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::{Color, Output};
use crate::settings::Settings;

const AFTER_HELP: &str = "\
Examples:
  tidemill dev                                       everything in one process, with a private Redis
  tidemill enqueue echo --input '{\"hello\":\"tide\"}' --wait
  tidemill workflow publish order.yaml && tidemill run order --input @order.json
  tidemill status <id> --watch                       a run's steps as a tree, live
  tidemill why <id>                                  what is it waiting for?
  tidemill approvals                                 who is asked what? `approve` and `reject` answer
  tidemill retry <id>                                a failed run again, from what failed
  tidemill service set openai limits.requests=600/1m concurrency=50
  tidemill service top                               rates, use, waits and breakers of all services, live
  tidemill runs --state failed --since 24h           find runs by state, workflow, label, tenant and time
  tidemill history <id>                              how it went: a waterfall, and every transition
  tidemill verify --all                              is what is stored what the audits lead to?
  tidemill backup create --to /backups               everything that must not be lost, while the pool works
  tidemill dead list --json | jq .code               lists are one JSON document a line

Settings come from the file (--config), then TIDEMILL_… variables, then flags; `tidemill config print` shows them.

Exit codes:
  0    done
  1    failed; the reason is in the last message (so is a job or run that was waited for and did not succeed)
  2    called wrongly: unknown flag or argument, or an input that cannot be read
  3    settings refused
  4    Redis cannot be reached, or is not fit for Tidemill
  5    asked to end, and work was left when the grace was over; or what was waited for has not ended in time
  130  ended at once by a second signal";

/// Tidemill: a pool of workers fed by Redis Streams.
///
/// Starts everything for development, takes jobs and runs in, tells where they are and why they wait, replays what failed.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    /// Write JSON: one document, or one a line for lists; errors too
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// When to use colours; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Arguments),
    Enqueue(enqueue::Arguments),
    Run(run::Arguments),
    Runs(runs::Arguments),
    Status(status::Arguments),
    Result(result::Arguments),
    Why(why::Arguments),
    Cancel(cancel::Arguments),
    Signal(signal::Arguments),
    Approve(approve::ApproveArguments),
    Reject(approve::RejectArguments),
    Approvals(approve::ListArguments),
    Retry(retry::RetryArguments),
    Rerun(retry::RerunArguments),
    Skip(skip::Arguments),
    Pause(pause::Arguments),
    Resume(pause::ResumeArguments),
    Paused(pause::ListArguments),
    Bulk(bulk::Arguments),
    Operations(skip::OperationsArguments),
    Audit(audit::Arguments),
    History(history::Arguments),
    Verify(verify::Arguments),
    Queues(queues::Arguments),
    Workers(workers::Arguments),
    Tools(tools::Arguments),
    #[command(subcommand)]
    Workflow(workflow::Command),
    #[command(subcommand)]
    Group(group::Command),
    #[command(subcommand)]
    Service(service::Command),
    #[command(subcommand)]
    Mode(mode::Command),
    #[command(subcommand)]
    Cron(cron::Command),
    #[command(subcommand)]
    Dead(dead::Command),
    #[command(subcommand)]
    Backup(backup::Command),
    #[command(subcommand)]
    Library(library::Command),
    /// Look at the settings of all programs: every section of the file, the environment, the flags
    #[command(subcommand)]
    Config(ConfigCommand),
    Completions(completions::Arguments),
}

/// Carries out a command.
pub(crate) fn run(arguments: Arguments) -> Exit {
    let Arguments { common, json, color, command } = arguments;
    let (sources, output) = (common.sources(), Output::new(json, color));
    let outcome = match command {
        Command::Dev(arguments) => return dev::run(&arguments, &sources, output),
        Command::Config(command) => return config(command, &sources, output),
        Command::Completions(arguments) => {
            completions::run(&arguments, output);
            return Exit::Ok;
        }
        command => one_shot(command, &sources, output),
    };
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => error.tell(json),
    }
}

fn config(command: ConfigCommand, sources: &Sources, output: Output) -> Exit {
    if !output.is_json() {
        return program::report("tidemill", cli::config(command, sources, crate::settings::check));
    }
    let shown = load(sources).and_then(|loaded| match command {
        ConfigCommand::Check => {
            output.document(&serde_json::json!({ "valid": true }));
            Ok(())
        }
        // as text: each value carries its origin, and secrets are hidden
        ConfigCommand::Print => {
            output.document(&serde_json::json!({ "settings": loaded.print()? }));
            Ok(())
        }
    });
    shown.map_or_else(|error| error.tell(true), |()| Exit::Ok)
}

/// The settings, checked.
fn load(sources: &Sources) -> Outcome<settings::Loaded<Settings>> {
    let loaded = settings::load::<Settings>(sources)?;
    let problems = crate::settings::check(&loaded);
    if problems.is_empty() { Ok(loaded) } else { Err(SettingsError::new(problems).into()) }
}

fn one_shot(command: Command, sources: &Sources, output: Output) -> Outcome {
    let loaded = load(sources)?;
    // a command tells by itself what it did; logs are there for who asks
    if loaded.is_given("log.level") {
        log::init(&loaded.settings.log).map_err(|error| Error::failed("log", error.to_string()))?;
    }
    let context = Context::new(loaded, output)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("runtime", format!("cannot start: {error}")))?;
    runtime.block_on(Box::pin(dispatch(&context, command)))
}

async fn dispatch(context: &Context, command: Command) -> Outcome {
    match command {
        // these do without Redis where they can
        Command::Workflow(command) => return Box::pin(workflow::run(context, command)).await,
        Command::Library(command) => return library::run(context, command).await,
        Command::Backup(command) => return Box::pin(backup::run(context, command)).await,
        _ => {}
    }
    context.connect().await?;
    match command {
        Command::Enqueue(arguments) => Box::pin(enqueue::run(context, arguments)).await,
        Command::Run(arguments) => Box::pin(run::run(context, arguments)).await,
        Command::Runs(arguments) => Box::pin(runs::run(context, arguments)).await,
        Command::Group(command) => Box::pin(group::run(context, command)).await,
        Command::Status(arguments) => Box::pin(status::run(context, arguments)).await,
        Command::Result(arguments) => Box::pin(result::run(context, arguments)).await,
        Command::Why(arguments) => Box::pin(why::run(context, arguments)).await,
        Command::Cancel(arguments) => Box::pin(cancel::run(context, arguments)).await,
        Command::Signal(arguments) => Box::pin(signal::run(context, arguments)).await,
        Command::Approve(arguments) => Box::pin(approve::approve(context, arguments)).await,
        Command::Reject(arguments) => Box::pin(approve::reject(context, arguments)).await,
        Command::Approvals(arguments) => Box::pin(approve::list(context, arguments)).await,
        Command::Retry(arguments) => Box::pin(retry::retry(context, arguments)).await,
        Command::Rerun(arguments) => Box::pin(retry::rerun(context, arguments)).await,
        Command::Skip(arguments) => Box::pin(skip::run(context, arguments)).await,
        Command::Pause(arguments) => Box::pin(pause::pause(context, arguments)).await,
        Command::Resume(arguments) => Box::pin(pause::resume(context, arguments)).await,
        Command::Paused(pause::ListArguments {}) => Box::pin(pause::list(context)).await,
        Command::Bulk(arguments) => Box::pin(bulk::run(context, arguments)).await,
        Command::Operations(arguments) => Box::pin(skip::operations(context, arguments)).await,
        Command::Audit(arguments) => Box::pin(audit::run(context, arguments)).await,
        Command::History(arguments) => Box::pin(history::run(context, arguments)).await,
        Command::Verify(arguments) => Box::pin(verify::run(context, arguments)).await,
        Command::Queues(arguments) => Box::pin(queues::run(context, arguments)).await,
        Command::Workers(arguments) => Box::pin(workers::run(context, arguments)).await,
        Command::Tools(arguments) => Box::pin(tools::run(context, arguments)).await,
        Command::Service(command) => Box::pin(service::run(context, command)).await,
        Command::Mode(command) => Box::pin(mode::run(context, command)).await,
        Command::Cron(command) => Box::pin(cron::run(context, command)).await,
        Command::Dead(command) => Box::pin(dead::run(context, command)).await,
        Command::Dev(_)
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Workflow(_)
        | Command::Backup(_)
        | Command::Library(_) => Ok(()),
    }
}
