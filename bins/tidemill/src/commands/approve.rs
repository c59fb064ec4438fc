//! `tidemill approve`, `tidemill reject` and `tidemill approvals`.

use serde_json::Value;
use tidemill_producer::operate::{self, Decision};
use tidemill_store::RunCursor;

use super::service::Who;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::relative;
use crate::table::{Cell, Table, shortened};

/// Approve what a step asks about
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill approvals
  tidemill approve order-42 review --by ann
  tidemill approve order-42 review --by ann --role boss --feedback 'well done'")]
pub(crate) struct ApproveArguments {
    #[command(flatten)]
    decision: DecisionArguments,
}

/// Reject what a step asks about; where its workflow says so, it is made anew with the feedback
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill reject order-42 review --by ann --feedback 'too long'")]
pub(crate) struct RejectArguments {
    #[command(flatten)]
    decision: DecisionArguments,
}

#[derive(Debug, clap::Args)]
struct DecisionArguments {
    /// Id of the run
    run: String,
    /// Id of the step that asks
    step: String,
    /// What is to be better: JSON, or plain text
    #[arg(long, value_name = "TEXT")]
    feedback: Option<String>,
    /// Who decides [default: your account]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// A role of who decides; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Only if this question stands open (`approvals` tells its number), so that you do not decide what you have not seen
    #[arg(long, value_name = "N")]
    iteration: Option<u32>,
}

/// List the questions that stand open: who may decide what
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill approvals
  tidemill approvals --workflow order --json | jq .run")]
pub(crate) struct ListArguments {
    /// Only those of runs of this workflow
    #[arg(long, short)]
    workflow: Option<String>,
    /// About so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

pub(crate) async fn approve(context: &Context, arguments: ApproveArguments) -> Outcome {
    decide(context, arguments.decision, true).await
}

pub(crate) async fn reject(context: &Context, arguments: RejectArguments) -> Outcome {
    decide(context, arguments.decision, false).await
}

async fn decide(context: &Context, arguments: DecisionArguments, approve: bool) -> Outcome {
    let DecisionArguments { run, step, feedback, by, roles, iteration } = arguments;
    let by = by.unwrap_or_else(Who::account);
    let feedback = feedback.map(|text| match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => text,
        Err(_) => Value::from(text).to_string(),
    });
    let decision = Decision { approve, by: &by, roles: &roles, feedback: feedback.as_deref(), iteration };
    let intake = context.intake();
    let decided = operate::decide(&context.store, intake.workflows(), (&run, &step), decision).await?;
    let verb = if approve { "approved" } else { "rejected" };
    let line = format!("{by} has {verb} step {step} of {run} (question {})", decided.iteration);
    context.output.told(&decided, line);
    Ok(())
}

pub(crate) async fn list(context: &Context, arguments: ListArguments) -> Outcome {
    let cursor = arguments.cursor.as_deref().map(|text| {
        RunCursor::parse(text).ok_or_else(|| Error::usage("--cursor: this is not one that a page gave"))
    });
    let (cursor, limit) = (cursor.transpose()?, usize::from(arguments.limit));
    let intake = context.intake();
    let page =
        operate::questions(&context.store, intake.workflows(), arguments.workflow, (cursor, limit)).await?;
    let now_ms = context.store.home().now_ms().await?;
    let mut table = Table::new(&["RUN", "STEP", ">NO", "WHO", "SINCE", "QUESTION"]);
    for question in &page.questions {
        if context.output.is_json() {
            context.output.document(question);
            continue;
        }
        let who = if question.who.is_empty() { "anybody".to_owned() } else { question.who.join(", ") };
        table.row(vec![
            Cell::new(&question.run),
            Cell::new(&question.step),
            Cell::new(format!("{}/{}", question.iteration, question.max_iterations)),
            Cell::new(shortened(&who, 40)),
            Cell::new(relative(question.since_ms, now_ms)),
            Cell::new(shortened(&question.prompt, 60)),
        ]);
    }
    context.output.listing(&table, "nobody is asked anything");
    if let Some(next) = page.next {
        crate::output::Output::note(&format!("more: --cursor {next}"));
    }
    Ok(())
}
