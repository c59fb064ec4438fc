//! Batches: one JSON object a line, one answer a line.

use std::time::Duration;

use axum::extract::Request as HttpRequest;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidemill_store::Durability;

use super::{Door, body, submit};
use crate::intake::{Accepted, Kind, Request};
use crate::refusal::{Code, Refusal};

pub(super) async fn post(
    door: &Door,
    kind: Kind,
    durability: Option<Durability>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let settings = door.intake().settings();
    let within = Duration::from_millis(settings.body_timeout_ms);
    let headers = request.headers().clone();
    // before the body is read: a batch that waits for its turn must not hold its bytes in memory
    let turn = door.inner.batches.acquire().await;
    let turn = turn.map_err(|_| Refusal::new(Code::Internal, "batches are no longer taken in"))?;
    let body = body::read(request, settings.max_batch_bytes, within).await?;
    let text = body::text(&body)?;
    let lines = lines_of(text, settings.max_batch_lines)?;
    let requests: Vec<Result<Request<'_>, Refusal>> = lines
        .iter()
        .map(|(_, line)| {
            Request::parse(kind, line).map(|mut request| {
                submit::add_trace(&mut request, &headers);
                request
            })
        })
        .collect();
    let outcomes = door.intake().submit_batch(kind, &requests, durability).await;
    drop(turn);
    let mut answer = Vec::with_capacity(outcomes.len() * 96);
    for ((line, _), outcome) in lines.iter().zip(&outcomes) {
        write_line(&mut answer, *line, outcome);
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/x-ndjson")], answer).into_response())
}

/// The lines that hold something, with their numbers from 1.
fn lines_of(text: &str, most: usize) -> Result<Vec<(usize, &str)>, Refusal> {
    let mut lines = Vec::new();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain(std::iter::once(text.len()));
    for (at, end) in ends.enumerate() {
        let line = text.get(start..end).unwrap_or_default().trim_ascii();
        start = end + 1;
        if line.is_empty() {
            continue;
        }
        if lines.len() == most {
            let detail =
                format!("the batch has more than {most} lines: nothing was taken in; send several batches");
            return Err(Refusal::new(Code::BatchTooLarge, detail));
        }
        lines.push((at + 1, line));
    }
    Ok(lines)
}

/// `{"line":1,"status":202,"id":…,"state":…,"durability":…}` or a problem document with `line`.
fn write_line(answer: &mut Vec<u8>, line: usize, outcome: &Result<Accepted, Refusal>) {
    match outcome {
        Ok(accepted) => {
            let status = if accepted.state == crate::AcceptedAs::Duplicate { "200" } else { "202" };
            // ids are checked when they enter: none needs escaping
            for part in [
                "{\"line\":",
                &line.to_string(),
                ",\"status\":",
                status,
                ",\"id\":\"",
                &accepted.id,
                "\",\"state\":\"",
                accepted.state.as_str(),
                "\",\"durability\":\"",
                accepted.assurance.as_str(),
                "\"",
            ] {
                answer.extend_from_slice(part.as_bytes());
            }
            for (name, text) in
                [("durability_reason", &accepted.assurance.reason), ("warning", &accepted.warning)]
            {
                if let Some(text) = text {
                    let text = serde_json::Value::from(text.as_str());
                    answer.extend_from_slice(format!(",\"{name}\":{text}").as_bytes());
                }
            }
            answer.push(b'}');
        }
        Err(refusal) => {
            let mut document = refusal.document();
            document["line"] = line.into();
            answer.extend_from_slice(document.to_string().as_bytes());
        }
    }
    answer.push(b'\n');
}
