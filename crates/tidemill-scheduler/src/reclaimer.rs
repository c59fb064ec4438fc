//! Reclaimer: takes what the dead hold and dispatches it anew.
//!
//! A consumer is dead when its liveness stood still for `dead_after_ms` (see [`watch`]). What it holds moves to new entries, each
//! move guarded once more by the counter that stood still; a worker that wakes up late finds its entries gone. A plain job that keeps
//! killing whoever claims it is buried; a step in that position is moved with its count, and the next worker settles it as failed
//! without running it, since only a worker knows what that means for the run.

mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_protocol::{EntryId, Job, Part, Reader, RunPart, StepState, Work};
use tidemill_runtime::clock::Instant;
use tidemill_runtime::crash::{self, Point};
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Burial, ClaimedEntry, Held, Member, Partition, Released, Slot, keys};

use crate::Error;
use crate::context::{Context, count};
use watch::{Dead, Look, NO_BEAT, Watch};

/// How often the consumers of all streams are listed, to find those that never beat.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// Time per tick: looking must go on while much is taken, or the watch would take it for a pause of its own.
const LONGEST: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Reclaimer {
    context: Context,
    ward: Ward,
}

/// One partition and what is known of its consumers.
struct Ward {
    partition: Partition,
    watch: Watch,
    generation: Option<u64>,
    listed: Option<Instant>,
    holders: BTreeSet<String>,
    streams: Vec<(String, String, &'static str)>,
}

/// What a dead consumer's entry stands for.
enum Find {
    /// To be moved.
    Move(Held),
    /// A job that has killed too many.
    Bury(EntryId, Box<Job>),
}

/// How far a dead consumer was dealt with.
#[derive(PartialEq, Eq)]
enum Progress {
    /// Nothing is left of it.
    Gone,
    /// There is more to take.
    More,
    /// It beats again.
    Alive,
}

impl Reclaimer {
    /// Each partition has a reclaimer of its own: one that cannot be reached would make the others look so rarely that they
    /// took it for a pause of their own, in which nobody can be told to be dead.
    pub(crate) fn new(context: Context, partition: &Partition) -> Self {
        let settings = &context.settings;
        let ward = Ward {
            partition: partition.clone(),
            watch: Watch::new(settings.dead_after(), Duration::from_millis(settings.watch_ms)),
            generation: None,
            listed: None,
            holders: BTreeSet::new(),
            streams: Vec::new(),
        };
        Self { context, ward }
    }
}

impl Ward {
    /// Looks at who is dead. Our own consumer is not for us to judge.
    async fn look(&mut self, context: &Context) -> Result<Vec<Dead>, Error> {
        let generation = self.partition.link().generation();
        let run_id = if self.generation == Some(generation) {
            None
        } else {
            Some(context.store.facts().await?.run_id)
        };
        if self.listed.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
            self.list().await?;
        }
        let (redis_ms, beats) = tokio::join!(self.partition.now_ms(), self.partition.beats());
        let (redis_ms, beats) = (redis_ms?, beats?);
        self.generation = Some(generation);
        let look = Look { at: Instant::now(), redis_ms, run_id };
        let (reset, mut dead) = self.watch.look(look, &beats, &self.holders);
        if let Some(reset) = reset {
            context.counters.watch_resets.with(&[reset.as_str()]).inc();
            tracing::warn!(
                why = reset.as_str(),
                partition = self.partition.index(),
                "liveness is judged anew"
            );
        }
        dead.retain(|dead| *dead.consumer != *context.who);
        Ok(dead)
    }

    async fn list(&mut self) -> Result<(), Error> {
        let keys = self.partition.keys();
        let queues = self.partition.queues().await?;
        let names = queues.into_iter().flat_map(|queue| [[&queue, keys::FIRST].concat(), queue]);
        let queue_streams = names.map(|queue| (keys.jobs(&queue), queue, keys::WORKERS));
        let runs = (keys.runs(), keys::RUNS.to_owned(), keys::SCHEDULERS);
        self.streams = queue_streams.chain(std::iter::once(runs)).collect();
        self.holders.clear();
        for (stream, _, group) in &self.streams {
            let consumers = self.partition.consumers(stream, group).await?;
            self.holders.extend(consumers.into_iter().map(|(consumer, _)| consumer));
        }
        self.listed = Some(Instant::now());
        Ok(())
    }

    /// Takes what a dead consumer holds, then deletes it.
    async fn reclaim(&self, context: &Context, dead: &Dead, until: Instant) -> Result<Progress, Error> {
        for (stream, queue, group) in &self.streams {
            let mut after = None;
            loop {
                let limit = context.settings.reclaim_batch;
                let held = self
                    .partition
                    .pending((stream, group), Some(&dead.consumer), after.as_ref(), limit)
                    .await?;
                let Some(last) = held.last() else { break };
                if Instant::now() >= until {
                    return Ok(Progress::More);
                }
                after = Some(last.entry.clone());
                let ids: Vec<EntryId> = held.into_iter().map(|held| held.entry).collect();
                let Some(moved) = self.take(context, (stream, group, queue), dead, ids).await? else {
                    return Ok(Progress::Alive);
                };
                crash::after(Point::SchedulerReclaim);
                context.counters.reclaimed.with(&[keys::base_of(queue)]).inc_by(moved);
                tracing::info!(consumer = dead.consumer, queue, moved, "entries taken from the dead");
            }
        }
        let streams: Vec<_> =
            self.streams.iter().map(|(stream, _, group)| (stream.clone(), *group)).collect();
        crash::before(Point::SchedulerForget);
        let forgotten = self.partition.forget(&dead.consumer, Some(&dead.beat), &streams).await?;
        crash::after(Point::SchedulerForget);
        Ok(match forgotten {
            Some(0) => Progress::Gone,
            Some(_) => Progress::More,
            None => Progress::Alive,
        })
    }

    /// Moves entries: to the front where a living worker reads it, else to the end of their stream.
    async fn moved(
        &self,
        context: &Context,
        (stream, group, queue): (&str, &'static str, &str),
        dead: &Dead,
        held: &[Held],
    ) -> Result<Vec<Released>, Error> {
        crash::before(Point::SchedulerReclaim);
        let base = keys::base_of(queue);
        let reads = |member: &Member| {
            member.reads_first
                && member.consumer != dead.consumer
                && member.queues.iter().any(|queue| queue == base)
        };
        if group == keys::WORKERS && self.partition.members().await?.iter().any(reads) {
            let from = (&*dead.consumer, &*dead.beat);
            return Ok(self.partition.reclaim(queue, &context.who, from, held).await?);
        }
        let from = (&*dead.consumer, Some(&*dead.beat));
        Ok(self.partition.release((stream, group), &context.who, from, held).await?)
    }

    /// Moves or buries entries. `None`: the consumer beats again; nothing more may be taken from it.
    async fn take(
        &self,
        context: &Context,
        (stream, group, queue): (&str, &'static str, &str),
        dead: &Dead,
        ids: Vec<EntryId>,
    ) -> Result<Option<u64>, Error> {
        let entries = self.partition.entries_by_id(stream, &ids).await?;
        let (mut held, mut fatal) = (Vec::new(), Vec::new());
        for (id, entry) in ids.into_iter().zip(entries) {
            match self.find(context, id, entry).await? {
                Find::Move(one) => held.push(one),
                Find::Bury(entry, job) => fatal.push((entry, job)),
            }
        }
        let mut moved = 0;
        if !held.is_empty() {
            let replies = self.moved(context, (stream, group, queue), dead, &held).await?;
            if replies.is_empty() {
                return Ok(None);
            }
            moved = count(replies.iter().filter(|reply| matches!(reply, Released::Moved(_))).count());
            for (reply, one) in replies.iter().zip(&held) {
                if *reply == Released::Unmovable {
                    let job = Job::new(
                        tidemill_protocol::Target::Tool(String::new()),
                        tidemill_protocol::Payload::null(),
                    );
                    let reason = "its holder died and it has more fields than can be moved".to_owned();
                    self.bury(context, (stream, group), (&one.entry, &job), ("too_many_fields", reason))
                        .await?;
                }
            }
        }
        if !fatal.is_empty() && !self.still_dead(dead).await? {
            return Ok(None);
        }
        for (entry, job) in &fatal {
            let deaths = job.extras().deaths.saturating_add(1);
            let reason =
                format!("{deaths} processes died while they held it; the last was {}", dead.consumer);
            if self.bury(context, (stream, group), (entry, job), ("crash_budget", reason)).await? {
                context.counters.deaths_buried.inc();
                tracing::warn!(
                    job = job.id(entry),
                    stream,
                    deaths,
                    "job buried: it keeps killing whoever claims it"
                );
            }
        }
        Ok(Some(moved))
    }

    async fn still_dead(&self, dead: &Dead) -> Result<bool, Error> {
        let beats = self.partition.beats().await?;
        Ok(beats.get(&dead.consumer).map_or(NO_BEAT, String::as_str) == dead.beat)
    }

    async fn find(
        &self,
        context: &Context,
        entry: EntryId,
        found: Option<ClaimedEntry>,
    ) -> Result<Find, Error> {
        let as_is = |entry| Find::Move(Held { entry, slot: None, attempt: 1 });
        // an entry that was deleted meanwhile is only taken off the pending list by being moved
        let Some(found) = found else { return Ok(as_is(entry)) };
        Ok(match Work::read(Reader { max_input_bytes: usize::MAX }, found.fields) {
            Ok(Work::Job(job)) if job.extras().deaths.saturating_add(1) >= context.settings.crash_budget => {
                Find::Bury(entry, Box::new(job))
            }
            Ok(Work::Job(job)) => {
                let attempt = job.extras().attempts_before.saturating_add(1);
                Find::Move(Held { entry, slot: None, attempt })
            }
            Ok(Work::Part(part)) => {
                Find::Move(Held { entry, slot: slot_of(context, &part).await, attempt: part.attempt })
            }
            // whoever claims it next buries it with the reason
            Ok(Work::Notice(_)) | Err(_) => as_is(entry),
        })
    }

    async fn bury(
        &self,
        context: &Context,
        (stream, group): (&str, &'static str),
        (entry, job): (&EntryId, &Job),
        (code, reason): (&'static str, String),
    ) -> Result<bool, Error> {
        let extras = job.extras();
        let reply_to = extras.reply_to.as_deref().filter(|key| self.partition.may_reply_to(key));
        let burial = Burial {
            entry,
            id: job.id(entry),
            code,
            reason: &reason,
            state: StepState::Failed,
            attempts: extras.attempts_before.saturating_add(1),
            ttl_ms: extras.result_ttl_ms.unwrap_or(0),
            reply_to,
        };
        tracing::debug!(who = &*context.who, stream, entry = entry.as_str(), code, "burying");
        Ok(self.partition.bury(stream, group, &[burial]).await?.first().copied().unwrap_or(false))
    }
}

/// The record that follows an entry's move; parts that have none of their own are without.
async fn slot_of(context: &Context, part: &RunPart) -> Option<Slot> {
    let (step, item) = match part.part {
        Part::Step { step } | Part::Gather { step } => (step, None),
        Part::Item { step, item } => (step, Some(item)),
        Part::Finish | Part::Fan { .. } | Part::Close => return None,
    };
    let plan = context.plans.of(&part.workflow).await;
    let id = plan.ok().and_then(|plan| plan.step(step).map(|step| step.id.to_string()));
    // without its definition the step is still moved; only its audit has to name it by its number
    let id = id.unwrap_or_else(|| format!("#{step}"));
    let name = item.map_or_else(|| id.clone(), |item| format!("{id}[{item}]"));
    Some(Slot { run: part.run.clone(), step, item, name })
}

impl Duty for Reclaimer {
    const NAME: &'static str = "reclaimer";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let until = Instant::now() + LONGEST;
        let (mut more, mut failure) = (false, None);
        let ward = &mut self.ward;
        for dead in ward.look(&self.context).await? {
            match ward.reclaim(&self.context, &dead, until).await {
                Ok(Progress::Gone) => {
                    ward.watch.forget(&dead.consumer);
                    ward.holders.remove(&dead.consumer);
                    self.context.counters.dead_members.inc();
                    tracing::warn!(consumer = dead.consumer, "process is dead and was removed");
                }
                Ok(Progress::More) => more = true,
                Ok(Progress::Alive) => {
                    ward.watch.forget(&dead.consumer);
                    tracing::info!(consumer = dead.consumer, "process beats again");
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None if more && Instant::now() >= until => Ok(Tick::Again),
            None => Ok(Tick::Done),
        }
    }
}
