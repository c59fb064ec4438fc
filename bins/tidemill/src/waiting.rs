//! Waiting for the end of a job or run.

use std::time::Duration;

use indicatif::ProgressBar;
use tidemill_producer::views;
use tidemill_protocol::ResultDocument;
use tidemill_store::{JobStatus, Partition};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::{locate, progress};

/// The first pause between two looks, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The result of a job or run, waited for up to `within`.
pub(crate) async fn result(context: &Context, id: &str, within: Duration) -> Outcome<ResultDocument> {
    let spinner = progress::spinner(context.output, "waiting");
    let outcome = tokio::time::timeout(within, look(context, id, &spinner)).await;
    spinner.finish_and_clear();
    outcome.unwrap_or_else(|_| {
        let waited = crate::moment::duration(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        Err(Error::unfinished(format!(
            "{id} has not ended after {waited}; it goes on: `tidemill why {id}` tells what it waits for, \
             `tidemill result {id} --wait` waits again"
        )))
    })
}

async fn look(context: &Context, id: &str, spinner: &ProgressBar) -> Outcome<ResultDocument> {
    let (mut pause, started) = (PAUSES.0, Instant::now());
    let mut gone = 0_u8;
    loop {
        match ended(context, id).await {
            Ok(Some(text)) => return read(id, &text),
            Ok(None) => gone = 0,
            // between two places work may be missed once
            Err(_) if gone < 2 => gone += 1,
            Err(error) => return Err(error),
        }
        spinner.set_message(format!("waiting for {id}"));
        tracing::trace!(id, elapsed = ?started.elapsed(), "has not ended");
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// The result document of what has ended; `None` while it has not.
pub(crate) async fn ended(context: &Context, id: &str) -> Outcome<Option<String>> {
    tidemill_protocol::check_any_id(id)?;
    // one read in the usual case
    let own = context.store.partition_of(id);
    if let Some(text) = own.result(id).await? {
        return Ok(Some(text));
    }
    let (partition, found) = locate::locate(context, id).await?;
    if found.is_run() {
        return run_ended(partition, id).await;
    }
    let locate::Found::Job(status) = found else { return Ok(None) };
    let nothing = |state: &str, code: &str, message: String, at_ms: u64| {
        let error = serde_json::json!({ "code": code, "message": message });
        Ok(Some(
            serde_json::json!({ "id": id, "state": state, "output": null, "error": error, "attempts": 0,
                "finished_at_ms": at_ms })
            .to_string(),
        ))
    };
    match status {
        JobStatus::Ended(text) => Ok(Some(text)),
        JobStatus::Buried(letter) => nothing("failed", &letter.code, letter.reason, letter.at_ms),
        JobStatus::Cancelled => nothing("cancelled", "cancelled", "it was cancelled".to_owned(), 0),
        JobStatus::Queued { .. }
        | JobStatus::Running { .. }
        | JobStatus::Deferred { .. }
        | JobStatus::InLine { .. } => Ok(None),
        JobStatus::Accepted | JobStatus::Unknown => Err(Error::failed(
            "no_result",
            format!(
                "job {id:?} was taken in and has left no result: enqueue with --result-ttl-ms (or --wait) to keep one"
            ),
        )),
    }
}

async fn run_ended(partition: &Partition, id: &str) -> Outcome<Option<String>> {
    let summary = partition.summaries(&[id.to_owned()]).await?.into_iter().next();
    let Some(summary) = summary else { return Ok(None) };
    if !summary.state.is_terminal() {
        return Ok(None);
    }
    Ok(views::run_result(partition, &summary).await?.ok())
}

/// Reads a stored result.
pub(crate) fn read(id: &str, text: &str) -> Outcome<ResultDocument> {
    serde_json::from_str(text).map_err(|error| {
        Error::failed("corrupt", format!("the stored result of {id} cannot be read: {error}"))
    })
}

/// Shows a result: its output for people, or the document. What did not succeed is an error, too.
pub(crate) fn show(context: &Context, result: &ResultDocument) -> Outcome {
    let output = context.output;
    if output.is_json() {
        output.document(result);
    }
    if result.state == "succeeded" {
        if !output.is_json() {
            output.line(pretty(result.output.get()));
            if let Some(degraded) = &result.degraded {
                let told = format!(
                    "degraded: {} answered in place of service {} ({}: {})",
                    degraded.answered_by, degraded.service, degraded.code, degraded.reason
                );
                crate::output::Output::note(&crate::table::printable(&told));
            }
        }
        return Ok(());
    }
    let why = result.error.as_ref().map(|error| format!(": {}: {}", error.code, error.message));
    let message =
        crate::table::printable(&format!("{} {}{}", result.id, result.state, why.unwrap_or_default()));
    Err(Error::failed(&result.state, message))
}

/// JSON text with line breaks and indents; every value keeps its very digits and its place.
pub(crate) fn pretty(json: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) =
        (String::with_capacity(json.len() * 2), 0_usize, false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line_break(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line_break(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line_break(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn line_break(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn pretty_json_keeps_every_digit_and_the_order() {
        let json = r#"{"z":12345678901234567890123,"a":[1, 2.50,{}],"s":"x,\"{y\\","e":[ ]}"#;
        let lines = [
            "{",
            r#"  "z": 12345678901234567890123,"#,
            r#"  "a": ["#,
            "    1,",
            "    2.50,",
            "    {}",
            "  ],",
            r#"  "s": "x,\"{y\\","#,
            r#"  "e": []"#,
            "}",
        ];
        let expected = lines.join("\n");
        assert_eq!(pretty(json), expected);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&pretty(json)), read(json));
        assert_eq!(pretty("null"), "null");
    }
}
