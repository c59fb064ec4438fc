//! What `enqueue` and `run` share: the flags of a request, and handing it in.

use std::io::Read;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tidemill_producer::{Accepted, AcceptedAs, Request};

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::waiting;

/// How long a result is kept when it is waited for and nothing else is said.
const WAITED_RESULT_TTL_MS: u64 = 600_000;

/// Flags of a request for a job or a run.
#[derive(Debug, clap::Args)]
pub(crate) struct RequestArgs {
    /// Its input: JSON text, @FILE, or - for standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub(crate) input: Option<String>,
    /// Queue (of a run: for its steps that name none)
    #[arg(long, short)]
    queue: Option<String>,
    /// Your idempotency id: a second one with it is not taken in
    #[arg(long)]
    id: Option<String>,
    /// Owner, for limits and fairness
    #[arg(long)]
    tenant: Option<String>,
    /// For whom it is done; owner, for limits
    #[arg(long)]
    user: Option<String>,
    /// Place in a line where it waits for a limit: 0 to 9, 9 goes first [default: 5]
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Begin only after this many milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "run_at_ms")]
    delay_ms: Option<u64>,
    /// Begin only at this time, in Unix milliseconds
    #[arg(long, value_name = "UNIX_MS")]
    run_at_ms: Option<u64>,
    /// Longest time of one attempt (of a run: of the whole), in milliseconds
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// Nothing begins later than this many milliseconds from now
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// Keep the result for this many milliseconds
    #[arg(long, value_name = "MS")]
    result_ttl_ms: Option<u64>,
    /// A stream that gets the result
    #[arg(long, value_name = "STREAM")]
    reply_to: Option<String>,
    /// Wait for the end and show the result
    #[arg(long, short)]
    wait: bool,
    /// Longest wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 600_000, requires = "wait")]
    wait_ms: u64,
}

impl RequestArgs {
    /// Hands the request in and shows what became of it; `force`: whatever its service's backpressure says.
    pub(crate) async fn submit(self, context: &Context, mut request: Request<'_>, force: bool) -> Outcome {
        request.input = self.input.as_deref().map(read_json).transpose()?.map(Into::into);
        let number = |value: Option<u64>| value.map(Into::into);
        let keep =
            if self.wait { self.result_ttl_ms.or(Some(WAITED_RESULT_TTL_MS)) } else { self.result_ttl_ms };
        request.queue = self.queue.map(Into::into);
        request.id = self.id.map(Into::into);
        request.tenant = self.tenant.map(Into::into);
        request.user = self.user.map(Into::into);
        request.priority = number(self.priority.map(u64::from));
        request.delay_ms = number(self.delay_ms);
        request.run_at_ms = number(self.run_at_ms);
        request.timeout_ms = number(self.timeout_ms);
        request.deadline_ms = number(self.deadline_ms);
        request.result_ttl_ms = number(keep);
        request.reply_to = self.reply_to.map(Into::into);
        let intake = if force { context.intake().past_backpressure() } else { context.intake() };
        let accepted = intake.submit(&request, None).await?;
        if let Some(warning) = &accepted.warning {
            Output::note(&format!("note: {warning}"));
        }
        if !self.wait {
            show(context, &accepted);
            return Ok(());
        }
        let result = waiting::result(context, &accepted.id, Duration::from_millis(self.wait_ms)).await?;
        waiting::show(context, &result)
    }
}

fn show(context: &Context, accepted: &Accepted) {
    let Accepted { id, state, assurance, warning } = accepted;
    let mut document = json!({ "id": id, "state": state.as_str(), "durability": assurance.as_str() });
    if let Some(warning) = warning {
        document["warning"] = warning.as_str().into();
    }
    let line = match state {
        AcceptedAs::Queued => format!("{id} is queued"),
        AcceptedAs::Deferred => format!("{id} waits for its time"),
        AcceptedAs::Duplicate => format!("{id} was taken in before; nothing was added"),
    };
    context.output.told(&document, line);
}

/// JSON text from an argument: itself, `@FILE`, or `-` for standard input. It is passed on as it stands.
pub(crate) fn read_json(argument: &str) -> Outcome<String> {
    let (text, place) = match argument.strip_prefix('@') {
        Some(file) => (read_file(file)?, file.to_owned()),
        None if argument == "-" => (read_standard_input()?, "standard input".to_owned()),
        None => (argument.to_owned(), "--input".to_owned()),
    };
    match serde_json::from_str::<&RawValue>(text.trim()) {
        Ok(json) => Ok(json.get().to_owned()),
        Err(error) => Err(Error::usage(format!(
            "{place}: this is not JSON: {error}; a string needs its quotes: '\"text\"'"
        ))),
    }
}

/// The text of a file.
pub(crate) fn read_file(file: &str) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|error| Error::usage(format!("{file} cannot be read: {error}")))
}

fn read_standard_input() -> Outcome<String> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut text)
        .map_err(|error| Error::usage(format!("standard input cannot be read: {error}")))?;
    Ok(text)
}
