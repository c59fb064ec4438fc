//! `tidemill workflow diff`.

use serde_json::{Value, json};
use tidemill_workflow::{Audience, Change, ChangeKind, Definition, Diff};

use super::super::request::read_file;
use super::is_file;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::table::{Style, printable, shortened};

/// Tell what differs between two definitions, member by member, and for whom it may break something
///
/// Comments, the order of members and the version itself are no differences. Exit code 1 when there are any.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill workflow diff order@3 order@4
  tidemill workflow diff order order.yaml
  tidemill workflow diff order@3 order@4 --json | jq '.changes[] | select(.breaks != [])'

May break: callers (an input that was taken is refused), readers (the output has another form), runs (those under way could not go on
with the other definition; they never do), workers (a tool or queue is needed that was not).")]
pub(crate) struct Arguments {
    /// The one before: NAME, NAME@VERSION or a file
    #[arg(value_name = "NAME@VERSION|FILE")]
    from: String,
    /// The one after
    #[arg(value_name = "NAME@VERSION|FILE")]
    to: String,
}

/// Longest value in a line.
const LONGEST: usize = 60;

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let (from, old) = definition(context, &arguments.from).await?;
    let (to, new) = definition(context, &arguments.to).await?;
    let diff = Diff::of(&old, &new);
    let (count, breaking) = (diff.changes.len(), diff.breaking());
    if context.output.is_json() {
        context.output.document(&json!({
            "from": from, "to": to, "equal": diff.is_empty(), "breaking": breaking, "changes": diff.changes,
        }));
    } else if diff.is_empty() {
        context.output.line(format!("{from} and {to} say the same"));
    } else {
        context.output.line(format!("{from} → {to}"));
        show(context, &diff);
    }
    if diff.is_empty() {
        return Ok(());
    }
    let differences = if count == 1 { "1 difference".to_owned() } else { format!("{count} differences") };
    let which = match breaking {
        0 => "none may break anything".to_owned(),
        _ => format!("{breaking} may break something"),
    };
    Err(Error::failed("different", format!("{differences}, {which}")))
}

async fn definition(context: &Context, word: &str) -> Outcome<(String, Definition)> {
    if is_file(word) {
        let text = read_file(word)?;
        if tidemill_serverless::is_document(&text) {
            let message = format!(
                "{word} is a Serverless Workflow document, which has no steps to compare; compare the texts"
            );
            return Err(Error::failed("invalid_workflow", message));
        }
        let definition = Definition::parse(&text, word);
        let definition =
            definition.map_err(|problems| Error::failed("invalid_workflow", problems.to_string()))?;
        return Ok((word.to_owned(), definition));
    }
    context.connect().await?;
    Ok(context.intake().workflows().definition(word).await?)
}

fn show(context: &Context, diff: &Diff) {
    let mut heading = None;
    for change in &diff.changes {
        let is_whole = change.path.is_empty();
        let of = change.step.as_deref();
        if !is_whole && heading != Some(of) {
            heading = Some(of);
            let text = of.map_or_else(|| "workflow".to_owned(), |id| format!("step {}", printable(id)));
            context.output.line(text);
        }
        let (mark, style) = match change.kind {
            ChangeKind::Added => ("+", Style::Good),
            ChangeKind::Removed => ("-", Style::Bad),
            ChangeKind::Changed | ChangeKind::Reordered => ("~", Style::Waiting),
        };
        let text = context.output.styled(&format!("{mark} {}", printable(&words(change))), style);
        let breaks: Vec<_> = change.breaks.iter().copied().map(Audience::as_str).collect();
        let breaks =
            if breaks.is_empty() { String::new() } else { format!("   may break {}", breaks.join(", ")) };
        let indent = if is_whole { "" } else { "  " };
        context.output.line(format!("{indent}{text}{breaks}"));
    }
}

fn words(change: &Change) -> String {
    let value = |value: &Option<Value>| value.as_ref().map_or_else(String::new, shown);
    if change.path.is_empty() {
        let step = change.to.as_ref().or(change.from.as_ref());
        let tool = step.and_then(|step| step.get("tool")).and_then(Value::as_str);
        let id = change.step.as_deref().unwrap_or_default();
        return tool.map_or_else(|| format!("step {id}"), |tool| format!("step {id} ({tool})"));
    }
    match change.kind {
        ChangeKind::Added => format!("{}: {}", change.path, value(&change.to)),
        ChangeKind::Removed => format!("{}: {}", change.path, value(&change.from)),
        ChangeKind::Changed => {
            format!("{}: {} → {}", change.path, value(&change.from), value(&change.to))
        }
        ChangeKind::Reordered => format!("{}: in another order: {}", change.path, value(&change.to)),
    }
}

fn shown(value: &Value) -> String {
    let words = value.as_array().filter(|values| !values.is_empty() && values.iter().all(Value::is_string));
    match words {
        Some(words) => {
            let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
            shortened(&words.join(", "), LONGEST)
        }
        None => shortened(&value.to_string(), LONGEST),
    }
}
