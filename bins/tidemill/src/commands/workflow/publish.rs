//! `tidemill workflow validate` and `publish`.

use serde_json::json;
use tidemill_producer::{Against, Publish};
use tidemill_workflow::{Plan, Problems};

use super::super::request::read_file;
use super::super::service::Who;
use crate::catalog::Tools;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;

/// Check definitions without publishing them: every problem with its file, line and reason
///
/// Tools are those that are built in, those of the settings, and, unless --offline, those that workers have announced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill workflow validate order.yaml
  tidemill workflow validate workflows/*.yaml --offline
  tidemill workflow validate order.yaml --against-runs")]
pub(crate) struct ValidateArguments {
    /// Definitions in YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Do not ask Redis which tools workers have
    #[arg(long, conflicts_with = "against_runs")]
    offline: bool,
    /// Let unknown tools pass
    #[arg(long)]
    allow_unknown_tools: bool,
    /// Tell which live runs of other versions would not be possible under it; exit code 1 if there are any
    #[arg(long)]
    against_runs: bool,
}

/// Check definitions and publish them; none is published if one is not valid
///
/// A version never changes once published. A definition without a version becomes the next one, unless it is the same as the newest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill workflow publish order.yaml
  tidemill workflow publish order.yaml --draft --reason 'with the new vendor'
  tidemill workflow publish workflows/*.yaml --require-compatible --json")]
pub(crate) struct PublishArguments {
    /// Definitions in YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Let unknown tools pass
    #[arg(long)]
    allow_unknown_tools: bool,
    /// As a draft: started only by `tidemill run NAME@VERSION --draft`, until it is activated
    #[arg(long)]
    draft: bool,
    /// Publish none unless every live run of their other versions would also be possible under them
    #[arg(long)]
    require_compatible: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "published")]
    reason: String,
    /// Who, for the audit [default: user and host]
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
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
    let plan = tidemill_serverless::plan(&text, file, tools);
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

pub(super) async fn validate(context: &Context, arguments: &ValidateArguments) -> Outcome {
    let ValidateArguments { files, offline, allow_unknown_tools, against_runs } = arguments;
    if *against_runs {
        context.connect().await?;
    }
    let tools = tools(context, *offline).await?.or_any(*allow_unknown_tools);
    let mut misfits = 0;
    for ((text, plan), file) in check(files, &tools)?.iter().zip(files) {
        let mut document = json!({ "file": file, "name": plan.name, "version": plan.version, "steps": plan.steps.len(), "valid": true });
        let mut line = format!("{file}: {} is valid, {}", plan.name, steps(plan.steps.len()));
        if *against_runs {
            let against = compare(context, text, file).await?;
            line.push_str(&told(&against));
            misfits += against.misfits;
            document["against_runs"] = json!(against);
        }
        context.output.told(&document, line);
    }
    if misfits == 0 {
        return Ok(());
    }
    let runs = if misfits == 1 { "1 live run".to_owned() } else { format!("{misfits} live runs") };
    Err(Error::failed(
        "incompatible",
        format!(
            "{runs} of other versions would not be possible under these definitions; they go on with theirs"
        ),
    ))
}

async fn compare(context: &Context, text: &str, file: &str) -> Outcome<Against> {
    let intake = context.intake();
    // checked before against more tools than the intake knows
    let checked = intake.workflows().check(text, file, true).await?;
    Ok(intake.workflows().against_runs(&checked).await?)
}

fn told(against: &Against) -> String {
    let mut text = match (against.runs, against.misfits) {
        (0, _) => "; no run of another version is under way".to_owned(),
        (runs, 0) => format!("; all {runs} live runs of other versions would be possible under it"),
        (runs, misfits) => {
            format!("; {misfits} of {runs} live runs of other versions would not be possible under it:")
        }
    };
    for misfit in &against.first {
        text.push_str(&format!(
            "\n  {} (version {}) has begun step {:?}: {}",
            misfit.run, misfit.version, misfit.step, misfit.why
        ));
    }
    if against.misfits > against.first.len() {
        text.push_str(&format!("\n  and {} more", against.misfits - against.first.len()));
    }
    text
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

pub(super) async fn publish(context: &Context, arguments: &PublishArguments) -> Outcome {
    let PublishArguments { files, allow_unknown_tools, draft, require_compatible, reason, by } = arguments;
    let tools = Tools::of_pool(context).await?.or_any(*allow_unknown_tools);
    let (intake, here) = (context.intake(), Who::here());
    let checked = check(files, &tools)?;
    if *require_compatible {
        for ((text, plan), file) in checked.iter().zip(files) {
            compare(context, text, file).await?.require(&plan.name)?;
        }
    }
    for ((text, _), file) in checked.iter().zip(files) {
        let published = intake
            .workflows()
            .publish(&Publish {
                text,
                file,
                // checked above against more tools than the intake knows
                any_tool: true,
                draft: *draft,
                require_compatible: *require_compatible,
                who: by.as_deref().unwrap_or(here.as_str()),
                why: reason,
            })
            .await?;
        let (name, state) = (format!("{}@{}", published.name, published.version), published.state);
        let document = json!({
            "file": file, "name": published.name, "version": published.version, "steps": published.steps,
            "state": state, "new": published.new,
        });
        let line = match (published.new, draft) {
            (true, false) => format!("{name} is published, {}", steps(published.steps)),
            (true, true) => format!(
                "{name} is published as a draft, {}; `tidemill run {name} --draft` tries it, `tidemill workflow activate {name}` puts it to use",
                steps(published.steps)
            ),
            (false, _) => format!("{name} was published before with the same text; it is {state}"),
        };
        context.output.told(&document, line);
    }
    Ok(())
}
