//! A request for a run, read from its entry: what it asks for and when, or why it is refused.

use tidemill_protocol::{EntryId, Job, Malformed, Payload, Reader, StepState, Target, Work, check_id};
use tidemill_store::{Burial, ClaimedEntry, Partition};

/// Redis orders by numbers that are whole up to this.
const LATEST: u64 = 1 << 53;

/// A well-formed request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) entry: EntryId,
    /// The run's id.
    pub(super) id: String,
    pub(super) job: Job,
}

/// A request that cannot be carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    entry: EntryId,
    pub(super) id: String,
    pub(super) code: &'static str,
    pub(super) reason: String,
    state: StepState,
    ttl_ms: u64,
    reply_to: Option<String>,
    /// The group in which it waited.
    pub(super) group: Option<String>,
    /// The step that asked for it: `<run> <step> <key>`.
    pub(super) parent: Option<String>,
}

/// When a request is to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// Now; this much is left until its deadline.
    Now {
        /// In milliseconds; absent when it has none.
        left_ms: Option<u64>,
    },
    /// At this Unix time in milliseconds.
    At(u64),
    /// Its deadline has passed.
    TooLate,
}

impl Request {
    pub(super) fn read(
        reader: Reader,
        claimed: &ClaimedEntry,
        partition: &Partition,
        crash_budget: u32,
    ) -> Result<Self, Box<Refusal>> {
        let entry = claimed.entry.clone();
        let refuse = |malformed: Malformed| Box::new(Refusal::of_malformed(claimed, partition, malformed));
        let job = match Work::read(reader, claimed.fields.clone()) {
            Ok(Work::Job(job)) => job,
            Ok(Work::Part(_) | Work::Notice(_)) => {
                return Err(refuse(wrong(
                    "malformed",
                    "a part of a run stands in the stream of requested runs",
                )));
            }
            Err(malformed) => return Err(refuse(malformed)),
        };
        if let Target::Tool(tool) = &job.target {
            let message = format!(
                "this stream takes runs of workflows only; add a job for tool {tool:?} to the stream jobs:<queue>"
            );
            return Err(refuse(wrong("wrong_stream", message)));
        }
        let request = Self { id: job.id(&entry).to_owned(), entry, job };
        let extras = request.job.extras();
        if let Some(reply_to) = extras.reply_to.as_deref()
            && !partition.may_reply_to(reply_to)
        {
            let message = format!(
                "replies cannot go to {reply_to:?}: use a key outside the namespace, or <namespace>:{{<partition>}}:reply:<name>"
            );
            return Err(refuse(wrong("invalid_reply_to", message)));
        }
        if extras.deaths >= crash_budget {
            let reason = format!("{} schedulers died while starting it", extras.deaths);
            return Err(request.refuse("crash_budget", reason));
        }
        Ok(request)
    }

    /// The workflow as written: `name` or `name@version`.
    pub(super) fn workflow(&self) -> &str {
        self.job.target.name()
    }

    /// What its plan is kept by within one batch: blocks are looked up in another way.
    pub(super) fn plan_key(&self) -> String {
        let mark = if self.has_begun() { "#" } else { "" };
        format!("{}{mark}", self.workflow())
    }

    /// The block of it that a step of another run asks for.
    pub(super) fn block(&self) -> Option<&str> {
        self.job.extras().child.as_ref()?.block.as_deref()
    }

    /// The run whose steps it is given, and the step from which it is done again.
    pub(super) fn source(&self) -> Option<(&str, Option<&str>)> {
        let source = self.job.extras().source.as_deref()?;
        Some(source.split_once(' ').map_or((source, None), |(run, step)| (run, Some(step))))
    }

    /// Whether it belongs to a run that has begun, whatever became of its version since.
    pub(super) fn has_begun(&self) -> bool {
        self.block().is_some() || self.source().is_some()
    }

    /// Whether [`Self::timing`] needs to be asked.
    pub(super) fn has_times(&self) -> bool {
        self.may_wait() || self.job.extras().deadline_ms.is_some()
    }

    /// Its name among the requests put aside, when its caller gave it an id: only then can there be another of it.
    pub(super) fn member_if_named(&self) -> Option<String> {
        self.job.extras().id.as_ref().map(|id| format!("j:{id}"))
    }

    /// Whether it asks for a later time, which may have come.
    pub(super) fn may_wait(&self) -> bool {
        self.job.extras().delay_ms.is_some() || self.job.extras().run_at_ms.is_some()
    }

    /// When it is to start, by Redis's clock. All waits count from the entry that first asked.
    pub(super) fn timing(&self, now_ms: u64) -> Timing {
        let extras = self.job.extras();
        let asked_ms = extras.first_entry.as_ref().unwrap_or(&self.entry).ms();
        let left_ms = extras.deadline_ms.map(|wait| asked_ms.saturating_add(wait).saturating_sub(now_ms));
        let delayed_to = extras.delay_ms.map_or(0, |delay| asked_ms.saturating_add(delay));
        let at_ms = delayed_to.max(extras.run_at_ms.unwrap_or(0));
        match left_ms {
            Some(0) => Timing::TooLate,
            _ if at_ms > now_ms => Timing::At(at_ms),
            left_ms => Timing::Now { left_ms },
        }
    }

    /// When it was asked for, as groups order it: 1000 times the millisecond, plus what tells those of one millisecond apart.
    pub(super) fn asked(&self) -> u64 {
        let extras = self.job.extras();
        let first = extras.first_entry.as_ref().unwrap_or(&self.entry);
        let later =
            first.ms().saturating_add(extras.delay_ms.unwrap_or(0)).max(extras.run_at_ms.unwrap_or(0));
        if later > first.ms() {
            return later.saturating_mul(1000).min(LATEST);
        }
        (first.ms().saturating_mul(1000) + first.seq().min(999)).min(LATEST)
    }

    pub(super) fn refuse(&self, code: &'static str, reason: String) -> Box<Refusal> {
        let extras = self.job.extras();
        Box::new(Refusal {
            entry: self.entry.clone(),
            id: self.id.clone(),
            code,
            reason,
            state: StepState::Failed,
            ttl_ms: extras.result_ttl_ms.unwrap_or(0),
            reply_to: extras.reply_to.clone(),
            group: extras.group.clone(),
            parent: extras.child.as_ref().and_then(|child| child.parent.clone()),
        })
    }

    pub(super) fn too_late(&self) -> Box<Refusal> {
        let reason = "its deadline_ms ran out before it started".to_owned();
        Box::new(Refusal { state: StepState::TimedOut, ..*self.refuse("deadline_exceeded", reason) })
    }

    /// Its input as JSON text.
    pub(super) fn input(&self) -> Result<Payload, Box<Refusal>> {
        let json = self.job.input.clone().into_json();
        json.map_err(|error| self.refuse("invalid_input", error.to_string()))
    }
}

fn wrong(code: &'static str, message: impl Into<String>) -> Malformed {
    Malformed { code, message: message.into() }
}

impl Refusal {
    /// Even a malformed request is answered where it says how, as far as that can be made out.
    fn of_malformed(claimed: &ClaimedEntry, partition: &Partition, malformed: Malformed) -> Self {
        let field = |name: &str| {
            let found = claimed.fields.iter().find(|(field, _)| &**field == name.as_bytes());
            found.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let id = field("id").or_else(|| field("_entry")).filter(|id| check_id(id).is_ok());
        Self {
            entry: claimed.entry.clone(),
            id: id.unwrap_or(claimed.entry.as_str()).to_owned(),
            code: malformed.code,
            reason: malformed.message,
            state: StepState::Failed,
            ttl_ms: field("result_ttl_ms").and_then(|ttl| ttl.parse().ok()).unwrap_or(0),
            reply_to: field("reply_to").filter(|key| partition.may_reply_to(key)).map(ToOwned::to_owned),
            group: field("_group").map(ToOwned::to_owned),
            parent: field("_parent").map(ToOwned::to_owned),
        }
    }

    pub(super) fn burial(&self) -> Burial<'_> {
        Burial {
            entry: &self.entry,
            id: &self.id,
            code: self.code,
            reason: &self.reason,
            state: self.state,
            attempts: 0,
            ttl_ms: self.ttl_ms,
            reply_to: self.reply_to.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, Timing};
    use tidemill_protocol::{EntryId, Extras, Job, Payload, Target};

    fn request(extras: Extras) -> Request {
        let job = Job {
            target: Target::Workflow("flow".to_owned()),
            input: Payload::empty_object(),
            extras: Some(Box::new(extras)),
        };
        let entry = EntryId::parse("5000-0".to_owned()).unwrap();
        Request { id: "r".to_owned(), entry, job }
    }

    #[test]
    fn waits_count_from_the_entry_that_first_asked() {
        let first = Some(EntryId::parse("1000-0".to_owned()).unwrap());
        let delayed = Extras { delay_ms: Some(500), ..Extras::default() };
        assert_eq!(request(delayed.clone()).timing(5_200), Timing::At(5_500));
        assert_eq!(request(delayed.clone()).timing(5_500), Timing::Now { left_ms: None });
        let moved = Extras { first_entry: first, ..delayed };
        assert_eq!(request(moved).timing(5_001), Timing::Now { left_ms: None }, "it has waited");
    }

    #[test]
    fn a_deadline_shrinks_and_then_refuses_and_huge_times_do_not_overflow() {
        let bound = Extras { deadline_ms: Some(100), ..Extras::default() };
        assert_eq!(request(bound.clone()).timing(5_040), Timing::Now { left_ms: Some(60) });
        assert_eq!(request(bound).timing(5_100), Timing::TooLate);
        let huge = Extras { delay_ms: Some(u64::MAX), deadline_ms: Some(u64::MAX), ..Extras::default() };
        assert_eq!(request(huge).timing(6_000), Timing::At(u64::MAX));
        let both = Extras { delay_ms: Some(10), run_at_ms: Some(9_000), ..Extras::default() };
        assert_eq!(request(both).timing(6_000), Timing::At(9_000), "the later one counts");
    }
}
