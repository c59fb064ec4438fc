//! `tidemill cron`.

use serde_json::json;
use tidemill_scheduler::Schedule;
use tidemill_store::{Cron, Missed};

use super::request::read_json;
use crate::catalog::Tools;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::{moment, relative};
use crate::table::{Cell, Style, Table};
use tidemill_workflow::ToolCatalog;

/// Work that begins by the clock
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the entries with their next and last times
    List,
    /// Add an entry, or change the one of this name
    Set(SetArgs),
    /// Remove an entry
    #[command(after_help = "Example:\n  tidemill cron remove nightly")]
    Remove {
        /// Its name
        name: String,
    },
    /// Let an entry rest
    #[command(after_help = "Example:\n  tidemill cron pause nightly")]
    Pause {
        /// Its name
        name: String,
    },
    /// Let a paused entry fire again; times that passed meanwhile are not made up for
    #[command(after_help = "Example:\n  tidemill cron resume nightly")]
    Resume {
        /// Its name
        name: String,
    },
}

/// What an entry is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill cron set nightly --schedule '30 2 * * *' --time-zone Europe/Berlin --workflow cleanup
  tidemill cron set ping --schedule '*/10 * * * * *' --tool http.request --input '{\"url\":\"https://example.com\"}' --missed skip")]
pub(crate) struct SetArgs {
    /// Its name
    name: String,
    /// Five fields (minute hour day month weekday), six with seconds first, or @hourly, @daily and the like
    #[arg(long, value_name = "CRON")]
    schedule: String,
    /// Time zone of the IANA database
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// The tool to run…
    #[arg(long, required_unless_present = "workflow", conflicts_with = "workflow")]
    tool: Option<String>,
    /// …or the workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Its input: JSON text, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// Queue of a tool's job
    #[arg(long, default_value = "default")]
    queue: String,
    /// Owner, for limits and fairness
    #[arg(long)]
    tenant: Option<String>,
    /// What to do with times that passed while no scheduler ran
    #[arg(long, value_enum, default_value = "once")]
    missed: MissedArg,
    /// Store it without letting it fire
    #[arg(long)]
    paused: bool,
    /// Do not refuse a tool that nobody has announced
    #[arg(long)]
    allow_unknown_tools: bool,
}

/// What to do with times that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MissedArg {
    /// Fire once for all of them
    Once,
    /// Let them pass
    Skip,
    /// Fire for each
    All,
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::List => list(context).await,
        Command::Set(arguments) => set(context, arguments).await,
        Command::Remove { name } => {
            if !context.store.home().remove_cron(&name).await? {
                return Err(unknown(context, &name).await);
            }
            context.output.told(&json!({ "name": name, "removed": true }), format!("{name} is removed"));
            Ok(())
        }
        Command::Pause { name } => pause(context, &name, true).await,
        Command::Resume { name } => pause(context, &name, false).await,
    }
}

async fn unknown(context: &Context, name: &str) -> Error {
    let known = context.store.home().crons().await.unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|(cron, ..)| cron.name.as_str()).collect();
    let hint =
        if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) };
    Error::failed("unknown_cron", format!("no cron entry is named {name:?}; {hint}"))
}

async fn list(context: &Context) -> Outcome {
    let home = context.store.home();
    let (crons, now_ms) = (home.crons().await?, home.now_ms().await?);
    let mut table = Table::new(&["NAME", "SCHEDULE", "ZONE", "RUNS", "STATE", "NEXT", "LAST"]);
    for (cron, next_ms, last_ms) in crons {
        if context.output.is_json() {
            let mut document = serde_json::to_value(&cron).unwrap_or_default();
            document["next_ms"] = next_ms.into();
            document["last_ms"] = last_ms.into();
            context.output.document(&document);
            continue;
        }
        let what = match (&cron.workflow, &cron.tool) {
            (Some(workflow), _) => format!("workflow {workflow}"),
            (None, Some(tool)) => format!("tool {tool}"),
            (None, None) => String::new(),
        };
        let next = next_ms.filter(|_| !cron.paused);
        table.row(vec![
            Cell::new(&cron.name).style(Style::Bold),
            Cell::new(&cron.schedule),
            Cell::new(&cron.time_zone),
            Cell::new(what),
            Cell::state(if cron.paused { "paused" } else { "active" }),
            Cell::new(next.map_or_else(|| "-".to_owned(), |at| relative(at, now_ms))),
            Cell::new(last_ms.map_or_else(|| "-".to_owned(), |at| relative(at, now_ms))),
        ]);
    }
    context.output.listing(&table, "there is no cron entry; `tidemill cron set --help` shows how to add one");
    Ok(())
}

async fn set(context: &Context, arguments: SetArgs) -> Outcome {
    let SetArgs {
        name,
        schedule,
        time_zone,
        tool,
        workflow,
        input,
        queue,
        tenant,
        missed,
        paused,
        allow_unknown_tools,
    } = arguments;
    // the name becomes part of each job's id
    tidemill_protocol::check_queue(&name)
        .map_err(|error| Error::usage(error.to_string().replacen("queue", "name of a cron entry", 1)))?;
    tidemill_protocol::check_queue(&queue)?;
    tenant.as_deref().map_or(Ok(()), tidemill_protocol::check_tenant)?;
    let input = input.as_deref().map(read_json).transpose()?;
    let times = Schedule::parse(&schedule, &time_zone).map_err(|error| Error::usage(error.to_string()))?;
    if let Some(workflow) = &workflow {
        context.intake().workflows().check_input(workflow, input.as_deref()).await?;
    }
    if let Some(tool) = tool.as_deref().filter(|_| !allow_unknown_tools)
        && !Tools::of_pool(context).await?.knows(tool)
    {
        let message = format!(
            "no tool {tool:?} is built in or announced by a worker; `tidemill tools` lists them, --allow-unknown-tools lets it pass"
        );
        return Err(Error::failed("unknown_tool", message));
    }
    let input = input.map_or_else(|| Ok(json!({})), |text| serde_json::from_str(&text));
    let input = input.map_err(|error| Error::usage(format!("the input cannot be read: {error}")))?;
    let missed = match missed {
        MissedArg::Once => Missed::Once,
        MissedArg::Skip => Missed::Skip,
        MissedArg::All => Missed::All,
    };
    let cron = Cron { name, schedule, time_zone, tool, workflow, input, queue, tenant, missed, paused };
    store(context, &cron, &times).await
}

async fn store(context: &Context, cron: &Cron, times: &Schedule) -> Outcome {
    let home = context.store.home();
    let now_ms = home.now_ms().await?;
    let next_ms = if cron.paused { None } else { times.next_after(now_ms) };
    if next_ms.is_none() && !cron.paused {
        let message = format!("schedule {:?} never comes: look at its day and month", cron.schedule);
        return Err(Error::usage(message));
    }
    home.set_cron(cron, next_ms).await?;
    let line = match next_ms {
        Some(next) => format!("{} fires next at {}, {}", cron.name, moment(next), relative(next, now_ms)),
        None => format!("{} is paused", cron.name),
    };
    context.output.told(&json!({ "name": cron.name, "paused": cron.paused, "next_ms": next_ms }), line);
    Ok(())
}

async fn pause(context: &Context, name: &str, paused: bool) -> Outcome {
    let crons = context.store.home().crons().await?;
    let Some((cron, ..)) = crons.into_iter().find(|(cron, ..)| cron.name == name) else {
        return Err(unknown(context, name).await);
    };
    let times = Schedule::parse(&cron.schedule, &cron.time_zone).map_err(|error| {
        Error::failed("invalid_cron", format!("cron entry {name:?}: {error}; set it anew"))
    })?;
    store(context, &Cron { paused, ..cron }, &times).await
}
