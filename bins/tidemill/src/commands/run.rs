//! `tidemill run`.

use tidemill_producer::{Kind, Request, search};
use tidemill_store::WorkflowTarget;

use super::request::RequestArgs;
use crate::context::Context;
use crate::error::{Error, Outcome};

/// Ask for a run of a published workflow
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill run enrich-order --input '{\"order\":42}' --wait
  tidemill run enrich-order@3 --input @order.json --id order-42
  tidemill run enrich-order@4 --draft --input @order.json --wait
  tidemill status order-42 --watch")]
pub(crate) struct Arguments {
    /// The workflow, with or without @version; without it the newest active version is run
    workflow: String,
    /// Run the named version although it may be a draft
    #[arg(long)]
    draft: bool,
    /// How its steps are carried out, in place of what the workflow and the pool say: classic, state_machine, optimized or hybrid
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// What the run is found by; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    #[command(flatten)]
    request: RequestArgs,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let mut workflow = arguments.workflow;
    if arguments.draft {
        if !workflow.contains('@') {
            return Err(Error::usage(format!("a draft is named with its version: {workflow}@1 --draft")));
        }
        if !workflow.ends_with(WorkflowTarget::DRAFT) {
            workflow.push_str(WorkflowTarget::DRAFT);
        }
    }
    let mode = arguments.mode.map(Into::into);
    let labels = labels_of(&arguments.label)?.map(Into::into);
    let request = Request { mode, labels, ..Request::new(Kind::Run, workflow) };
    arguments.request.submit(context, request, false).await
}

/// The JSON of labels that are written `NAME=VALUE`.
fn labels_of(words: &[String]) -> Outcome<Option<String>> {
    let labels: Result<serde_json::Map<_, _>, String> =
        words.iter().map(|word| search::label_of(word).map(|(name, value)| (name, value.into()))).collect();
    let labels = labels.map_err(|why| Error::usage(format!("--label: {why}")))?;
    Ok((!labels.is_empty()).then(|| serde_json::Value::Object(labels).to_string()))
}
