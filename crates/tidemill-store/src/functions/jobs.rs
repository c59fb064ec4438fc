//! Settling plain jobs.

use redis::Pipeline;
use tidemill_protocol::{EntryId, ErrorBody, StepState, result_head};

use super::{Function, FunctionCall, steps};
use crate::{Error, Partition};

pub(super) const COMPLETE: Function =
    Function { name: "tm1_complete", keys: &["stream"], args: &["group", "ttl_ms", "has_reply", "jobs"] };
pub(super) const BURY: Function =
    Function { name: "tm1_bury", keys: &["stream", "dead"], args: &["group", "dead_cap", "entries"] };

/// The end of a plain job whose result somebody wants.
#[derive(Debug, Clone)]
pub struct Completion<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The job's id.
    pub id: &'a str,
    /// The result, or the result without its end time as [`result_head`] writes it.
    pub head: &'a [u8],
    /// How long the result is kept, in milliseconds; 0: not at all.
    pub ttl_ms: u64,
    /// A stream of the caller's that gets the result.
    pub reply_to: Option<&'a str>,
}

/// An entry that goes to the dead letters.
#[derive(Debug, Clone)]
pub struct Burial<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The job's id.
    pub id: &'a str,
    /// Stable word.
    pub code: &'a str,
    /// Sentence for people.
    pub reason: &'a str,
    /// The terminal state shown by the result.
    pub state: StepState,
    /// Attempts made.
    pub attempts: u32,
    /// How long the failed result is kept, in milliseconds; 0: not at all.
    pub ttl_ms: u64,
    /// A stream of the caller's that gets the result.
    pub reply_to: Option<&'a str>,
}

impl Partition {
    /// Settles plain jobs that leave nothing behind, by bare commands.
    ///
    /// Returns how many of the entries the caller still owned; the rest were stale.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be settled again.
    pub async fn acknowledge(&self, queue: &str, entries: &[EntryId]) -> Result<usize, Error> {
        let stream = self.keys().jobs(queue);
        let mut both = Pipeline::with_capacity(2);
        // together or not at all: an entry that is acknowledged and not deleted would stay for ever
        both.atomic();
        both.cmd("XACK").arg(&stream).arg(crate::keys::WORKERS);
        for entry in entries {
            both.arg(entry.as_str());
        }
        both.cmd("XDEL").arg(&stream);
        for entry in entries {
            both.arg(entry.as_str());
        }
        both.ignore();
        let (owned,): (usize,) = self.link().pipeline("acknowledging jobs", &both).await?;
        Ok(owned)
    }

    /// Settles plain jobs with a result. All jobs of one call have the same `ttl_ms`, and all or none of them a `reply_to`.
    /// Replies which were recorded; the others were stale.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be settled again.
    pub async fn complete(&self, queue: &str, jobs: &[Completion<'_>]) -> Result<Vec<bool>, Error> {
        let Some(Completion { ttl_ms, reply_to, .. }) = jobs.first() else { return Ok(Vec::new()) };
        debug_assert!(
            jobs.iter().all(|job| job.ttl_ms == *ttl_ms && job.reply_to.is_some() == reply_to.is_some())
        );
        let keys = self.keys();
        let each = 1 + usize::from(reply_to.is_some());
        let mut call = FunctionCall::new(&COMPLETE, 1 + jobs.len() * each);
        call.key(&keys.jobs(queue));
        for job in jobs {
            call.key(&keys.result(job.id));
            if let Some(reply_to) = job.reply_to {
                call.key(reply_to);
            }
        }
        call.arg(crate::keys::WORKERS).arg(*ttl_ms).arg(u8::from(reply_to.is_some())).arg(jobs.len());
        for job in jobs {
            call.arg(job.entry.as_str()).arg(job.head);
        }
        self.link().query("completing jobs", call.command()).await.map(steps::flags)
    }

    /// Moves entries of a stream to the dead letters. Replies which were buried; the others were stale.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be settled again.
    pub async fn bury(&self, stream: &str, group: &str, burials: &[Burial<'_>]) -> Result<Vec<bool>, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&BURY, 2 + burials.len() * 2);
        call.key(stream).key(&keys.dead());
        for burial in burials {
            call.key(&keys.result(burial.id)).key(burial.reply_to.unwrap_or(stream));
        }
        call.arg(group).arg(steps::DEAD_CAP).arg(burials.len());
        for burial in burials {
            let error = ErrorBody { code: burial.code.to_owned(), message: burial.reason.to_owned() };
            let head = result_head(burial.id, burial.state, None, Some(&error), burial.attempts);
            call.arg(burial.entry.as_str())
                .arg(burial.code)
                .arg(burial.reason)
                .arg(burial.attempts)
                .arg(head);
            call.arg(burial.ttl_ms).arg(u8::from(burial.reply_to.is_some()));
        }
        self.link().query("burying entries", call.command()).await.map(steps::flags)
    }
}
