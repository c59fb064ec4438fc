//! `tidemill workflow`.

mod diff;
mod life;
mod publish;
mod versions;

use std::path::Path;

use serde_json::json;
use tidemill_store::{Published, WorkflowTarget};

use super::request::read_file;
use crate::catalog::Tools;
use crate::context::Context;
use crate::error::{Error, Outcome};

/// Workflow definitions: check, publish, compare, look at, draw; and the life of their versions
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Validate(publish::ValidateArguments),
    Publish(publish::PublishArguments),
    /// List the published workflows
    List,
    Versions(versions::Arguments),
    Activate(life::Arguments),
    Deprecate(life::DeprecateArguments),
    Archive(life::ArchiveArguments),
    History(versions::HistoryArguments),
    Diff(diff::Arguments),
    /// Write a published definition as it was published
    #[command(after_help = "Example:\n  tidemill workflow show order@3")]
    Show {
        /// Its name, with or without @version
        workflow: String,
    },
    /// Draw a workflow: a file, or a published one
    #[command(after_help = "Examples:
  tidemill workflow graph order.yaml
  tidemill workflow graph order@3 --format dot | dot -Tsvg > order.svg")]
    Graph {
        /// A file, or a name with or without @version
        workflow: String,
        /// The language of the drawing
        #[arg(long, value_enum, default_value = "mermaid")]
        format: Format,
    },
}

/// The language of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A Mermaid flowchart
    Mermaid,
    /// Graphviz
    Dot,
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        // these do without Redis where they can
        Command::Validate(arguments) => return publish::validate(context, &arguments).await,
        Command::Graph { workflow, format } => return graph(context, &workflow, format).await,
        Command::Diff(arguments) => return diff::run(context, &arguments).await,
        _ => {}
    }
    context.connect().await?;
    match command {
        Command::Publish(arguments) => publish::publish(context, &arguments).await,
        Command::List => versions::list(context).await,
        Command::Versions(arguments) => versions::run(context, &arguments).await,
        Command::History(arguments) => versions::history(context, &arguments).await,
        Command::Activate(arguments) => life::activate(context, &arguments).await,
        Command::Deprecate(arguments) => life::deprecate(context, &arguments).await,
        Command::Archive(arguments) => life::archive(context, &arguments).await,
        Command::Show { workflow } => {
            let published = find(context, &workflow).await?;
            context.output.told(&published, published.source.trim_end());
            Ok(())
        }
        Command::Validate(_) | Command::Graph { .. } | Command::Diff(_) => Ok(()),
    }
}

/// Whether a word names a file, and not a published workflow.
fn is_file(word: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| word.ends_with(end)) || Path::new(word).is_file()
}

/// A published definition by `name` or `name@version`.
async fn find(context: &Context, workflow: &str) -> Outcome<Published> {
    let unknown = |hint: &str| {
        Error::failed("unknown_workflow", format!("no workflow {workflow:?} is published; {hint}"))
    };
    let target = WorkflowTarget::parse(workflow).ok_or_else(|| unknown("a version is a whole number"))?;
    let WorkflowTarget { name, version, .. } = target;
    let home = context.store.home();
    if let Some(published) = home.definition(name, version).await? {
        return Ok(published);
    }
    let versions = home.versions(name).await?;
    Err(match versions.last() {
        Some(newest) => unknown(&format!("its newest version is {}", newest.version)),
        None => unknown("`tidemill workflow list` shows all"),
    })
}

async fn graph(context: &Context, workflow: &str, format: Format) -> Outcome {
    // what is drawn need not run here
    let tools = Tools::here(&context.settings)?.or_any(true);
    let (text, file) = if is_file(workflow) {
        (read_file(workflow)?, workflow.to_owned())
    } else {
        context.connect().await?;
        let published = find(context, workflow).await?;
        (published.source, format!("{}@{}", published.name, published.version))
    };
    let plan = tidemill_serverless::plan(&text, &file, &tools)
        .map_err(|problems| Error::failed("invalid_workflow", problems.to_string()))?;
    let (language, drawing) = match format {
        Format::Mermaid => ("mermaid", plan.to_mermaid()),
        Format::Dot => ("dot", plan.to_dot()),
    };
    context.output.told(
        &json!({ "name": plan.name, "version": plan.version, "format": language, "graph": drawing }),
        drawing.trim_end(),
    );
    Ok(())
}
