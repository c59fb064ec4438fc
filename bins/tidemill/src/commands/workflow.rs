//! `tidemill workflow`.

use std::path::Path;

use serde_json::json;
use tidemill_store::Published;
use tidemill_workflow::{Definition, Plan, Problems};

use super::request::read_file;
use crate::catalog::Tools;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::table::{Cell, Table};

/// Workflow definitions: check, publish, look at, draw
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check definitions without publishing them: every problem with its file, line and reason
    ///
    /// Tools are those that are built in, those of the settings, and, unless --offline, those that workers have announced.
    #[command(after_help = "Examples:
  tidemill workflow validate order.yaml
  tidemill workflow validate workflows/*.yaml --offline")]
    Validate {
        /// Definitions in YAML or JSON
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Do not ask Redis which tools workers have
        #[arg(long)]
        offline: bool,
        /// Let unknown tools pass
        #[arg(long)]
        allow_unknown_tools: bool,
    },
    /// Check definitions and publish them; none is published if one is not valid
    ///
    /// A version never changes once published. A definition without a version becomes the next one, unless it is the same as the newest.
    #[command(after_help = "Examples:
  tidemill workflow publish order.yaml
  tidemill workflow publish workflows/*.yaml --json")]
    Publish {
        /// Definitions in YAML or JSON
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Let unknown tools pass
        #[arg(long)]
        allow_unknown_tools: bool,
    },
    /// List the published workflows
    List,
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
        Command::Validate { files, offline, allow_unknown_tools } => {
            let tools = tools(context, offline).await?.or_any(allow_unknown_tools);
            validate(context, &files, &tools)
        }
        Command::Publish { files, allow_unknown_tools } => {
            context.connect().await?;
            let tools = Tools::of_pool(context).await?.or_any(allow_unknown_tools);
            publish(context, &files, &tools).await
        }
        Command::List => {
            context.connect().await?;
            list(context).await
        }
        Command::Show { workflow } => {
            context.connect().await?;
            let published = find(context, &workflow).await?;
            context.output.told(&published, published.source.trim_end());
            Ok(())
        }
        Command::Graph { workflow, format } => graph(context, &workflow, format).await,
    }
}

/// Without Redis, what is known here is better than nothing, if that is said.
async fn tools(context: &Context, offline: bool) -> Outcome<Tools> {
    if offline {
        return Tools::here(&context.settings);
    }
    match context.connect().await {
        Ok(_) => Tools::of_pool(context).await,
        Err(_) => {
            let url = tidemill_store::redact_url(&context.settings.redis.url);
            Output::note(&format!(
                "note: no Redis at {url}: tools are those built in and those of the settings (--offline says so at once)"
            ));
            Tools::here(&context.settings)
        }
    }
}

fn compile(file: &str, tools: &Tools) -> Outcome<(String, Result<Plan, Problems>)> {
    let text = read_file(file)?;
    let plan = Plan::from_source(&text, file, tools);
    Ok((text, plan))
}

/// All problems of all files.
fn check(files: &[String], tools: &Tools) -> Outcome<Vec<(String, Plan)>> {
    let (mut good, mut words, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        match compile(file, tools)? {
            (text, Ok(plan)) => good.push((text, plan)),
            (_, Err(found)) => {
                words.push(found.to_string());
                problems.extend(found.iter().map(|problem| {
                    json!({
                        "file": problem.file, "line": problem.line, "column": problem.column,
                        "path": problem.path, "code": problem.code.as_str(), "message": problem.message,
                    })
                }));
            }
        }
    }
    if problems.is_empty() {
        return Ok(good);
    }
    let (count, files) = (problems.len(), files.len());
    let message = format!(
        "{count} {} in {files} {}:\n{}",
        if count == 1 { "problem" } else { "problems" },
        if files == 1 { "definition" } else { "definitions" },
        words.join("\n")
    );
    Err(Error::failed("invalid_workflow", message).with_problems(problems))
}

fn validate(context: &Context, files: &[String], tools: &Tools) -> Outcome {
    for ((_, plan), file) in check(files, tools)?.iter().zip(files) {
        let document = json!({ "file": file, "name": plan.name, "version": plan.version, "steps": plan.steps.len(), "valid": true });
        let line = format!("{file}: {} is valid, {}", plan.name, steps(plan.steps.len()));
        context.output.told(&document, line);
    }
    Ok(())
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

async fn publish(context: &Context, files: &[String], tools: &Tools) -> Outcome {
    let intake = context.intake();
    for ((text, _), file) in check(files, tools)?.into_iter().zip(files) {
        // checked above against more tools than the intake knows
        let published = intake.workflows().publish(&text, file, true).await?;
        let name = format!("{}@{}", published.name, published.version);
        let document = json!({
            "file": file, "name": published.name, "version": published.version, "steps": published.steps, "new": published.new,
        });
        let line = match published.new {
            true => format!("{name} is published, {}", steps(published.steps)),
            false => format!("{name} was published before with the same text"),
        };
        context.output.told(&document, line);
    }
    Ok(())
}

async fn list(context: &Context) -> Outcome {
    let home = context.store.home();
    let mut table = Table::new(&["WORKFLOW", ">NEWEST", ">VERSIONS", ">STEPS", "DESCRIPTION"]);
    for published in home.definitions().await? {
        let versions = home.versions(&published.name).await?;
        let definition = Definition::parse(&published.source, &published.name).ok();
        let count = definition.as_ref().map(|definition| definition.steps.len());
        let description = definition.and_then(|definition| definition.description);
        if context.output.is_json() {
            context.output.document(&json!({
                "name": published.name, "version": published.version, "versions": versions, "steps": count, "description": description,
            }));
            continue;
        }
        table.row(vec![
            Cell::new(&published.name),
            published.version.into(),
            versions.len().into(),
            Cell::new(count.map_or_else(|| "not readable".to_owned(), |count| count.to_string())),
            Cell::new(description.unwrap_or_default()),
        ]);
    }
    context.output.listing(&table, "no workflow is published; `tidemill workflow publish FILE` does that");
    Ok(())
}

/// A published definition by `name` or `name@version`.
async fn find(context: &Context, workflow: &str) -> Outcome<Published> {
    let unknown = |hint: &str| {
        Error::failed("unknown_workflow", format!("no workflow {workflow:?} is published; {hint}"))
    };
    let (name, version) = match workflow.split_once('@') {
        None => (workflow, None),
        Some((name, version)) => match version.parse() {
            Ok(version) => (name, Some(version)),
            Err(_) => return Err(unknown("a version is a whole number")),
        },
    };
    let home = context.store.home();
    if let Some(published) = home.definition(name, version).await? {
        return Ok(published);
    }
    let versions = home.versions(name).await?;
    Err(match versions.last() {
        Some(newest) => unknown(&format!("its newest version is {newest}")),
        None => unknown("`tidemill workflow list` shows all"),
    })
}

async fn graph(context: &Context, workflow: &str, format: Format) -> Outcome {
    // what is drawn need not run here
    let tools = Tools::here(&context.settings)?.or_any(true);
    let looks_like_file = [".yaml", ".yml", ".json"].iter().any(|end| workflow.ends_with(end));
    let (text, file) = if looks_like_file || Path::new(workflow).is_file() {
        (read_file(workflow)?, workflow.to_owned())
    } else {
        context.connect().await?;
        let published = find(context, workflow).await?;
        (published.source, format!("{}@{}", published.name, published.version))
    };
    let plan = Plan::from_source(&text, &file, &tools)
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
