//! A run as it goes: each audit record is an event.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream;
use tidemill_protocol::{AuditRecord, RunState};
use tidemill_store::Partition;

use super::Door;
use super::answer::ProblemView;
use crate::refusal::{Code, Refusal};
use crate::views;

/// Pause between two looks while nothing happens; it grows to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A comment is sent when there was no event for this long, so that nobody in between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Audit entries of one look.
const PAGE: usize = 200;
/// Looks that may fail in a row before the stream ends; the client then comes back with the last id.
const MAX_FAILURES: u32 = 20;

/// Follows a run with server-sent events.
///
/// Each event is one audit record: its `id` is the record's sequence number, its name `run` or `step`. A client that comes
/// back with `Last-Event-ID` gets what it has missed. The stream ends after the run's last record.
#[utoipa::path(get, path = "/v1/runs/{id}/events", tag = "runs", operation_id = "follow_run",
    params(("id" = String, Path, description = "The run's id"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Only records after this one")),
    responses((status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn follow(
    State(door): State<Door>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let after = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default()) {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| {
            let detail =
                format!("the header Last-Event-ID is {text:?}; it is the id of an event, a whole number");
            Refusal::new(Code::InvalidRequest, detail)
        })?,
    };
    views::run_exists(door.store(), &id).await?;
    let partition = door.store().partition_of(&id).clone();
    let follower = Follower {
        partition,
        run: id,
        after,
        cursor: None,
        waiting: Vec::new().into_iter(),
        pause: SHORTEST_PAUSE,
        failures: 0,
        over: false,
        door,
    };
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("still going");
    Ok(Sse::new(follower.events()).keep_alive(alive).into_response())
}

struct Follower {
    door: Door,
    partition: Partition,
    run: String,
    /// The last sequence number that the client has.
    after: u64,
    cursor: Option<String>,
    waiting: std::vec::IntoIter<AuditRecord>,
    pause: Duration,
    failures: u32,
    over: bool,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async {
            let record = follower.next().await?;
            let name = if record.subject == "@" { "run" } else { "step" };
            let event = Event::default().id(record.seq.to_string()).event(name);
            let event =
                event.json_data(&record).unwrap_or_else(|_| Event::default().comment("unreadable record"));
            Some((Ok(event), follower))
        })
    }

    /// The next record, or `None` when the stream ends.
    async fn next(&mut self) -> Option<AuditRecord> {
        loop {
            if self.over {
                return None;
            }
            if let Some(record) = self.waiting.next() {
                self.over = is_last(&record);
                if record.seq <= self.after {
                    continue;
                }
                self.after = record.seq;
                return Some(record);
            }
            match self.partition.audit_page(&self.run, self.cursor.as_deref(), PAGE).await {
                Ok(page) if !page.records.is_empty() => {
                    (self.cursor, self.failures, self.pause) = (page.cursor, 0, SHORTEST_PAUSE);
                    self.waiting = page.records.into_iter();
                    continue;
                }
                Ok(_) => self.failures = 0,
                Err(error) => {
                    self.failures += 1;
                    tracing::debug!(run = self.run, %error, "the audit of a followed run cannot be read");
                    if self.failures > MAX_FAILURES || !error.is_transient() {
                        return None;
                    }
                }
            }
            self.rest().await?;
        }
    }

    /// Waits a little; `None` when the process ends, or the run is gone.
    async fn rest(&mut self) -> Option<()> {
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            () = self.door.ending().cancelled() => return None,
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if self.pause == LONGEST_PAUSE && self.failures == 0 {
            // its retention may end while nobody writes a last record
            views::run_exists(self.door.store(), &self.run).await.ok()?;
        }
        Some(())
    }
}

fn is_last(record: &AuditRecord) -> bool {
    record.subject == "@" && RunState::parse(&record.to).is_some_and(RunState::is_terminal)
}
