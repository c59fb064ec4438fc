//! Every key of one partition. `docs/redis-keys.md` says the same in prose; a test compares the two.

/// The consumer group of every queue.
pub const WORKERS: &str = "workers";
/// The consumer group of the stream of requested runs.
pub const SCHEDULERS: &str = "schedulers";
/// Behind a queue's name: its stream of work that comes before the rest: what had begun with somebody who died, and what was called
/// up from a line. Workers read it before the queue's own.
pub const FIRST: &str = ":first";

/// The queue itself, of a name that may be that of its stream [`FIRST`].
#[must_use]
pub fn base_of(queue: &str) -> &str {
    queue.strip_suffix(FIRST).unwrap_or(queue)
}

/// The name under which requested runs wait in `due` and `deferred`; no queue can have it.
pub const RUNS: &str = "@runs";

/// The name under which the alarms of waiting steps stand in `due` and `deferred`; no queue can have it.
pub const WAITS: &str = "@waits";

/// The keys of one partition: `<namespace>:{<partition>}:…`, so that all of them are in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys of a partition.
    #[must_use]
    pub fn new(namespace: &str, partition: u32) -> Self {
        Self { prefix: format!("{namespace}:{{{partition}}}:") }
    }

    /// What every key of the partition begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn key(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }

    fn of(&self, kind: &str, name: &str) -> String {
        [&self.prefix, kind, name].concat()
    }

    /// Stream: work that is ready, one per queue; and by the name `<queue>:first` what comes before it. Entries go when settled.
    #[must_use]
    pub fn jobs(&self, queue: &str) -> String {
        self.of("jobs:", queue)
    }

    /// Stream: runs that are asked for. Entries are deleted when started.
    #[must_use]
    pub fn runs(&self) -> String {
        self.key("runs")
    }

    /// The stream behind a name of [`Self::due`]: a queue's, or that of requested runs.
    #[must_use]
    pub fn stream(&self, queue: &str) -> String {
        if queue == RUNS { self.runs() } else { self.jobs(queue) }
    }

    /// Stream: dead letters. Bounded by count.
    #[must_use]
    pub fn dead(&self) -> String {
        self.key("dead")
    }

    /// Sorted set: work put aside, by the time it is due; one per queue.
    #[must_use]
    pub fn due(&self, queue: &str) -> String {
        self.of("due:", queue)
    }

    /// Hash: the fields of work put aside, until a time or in a line, as `MessagePack`; one per queue.
    #[must_use]
    pub fn deferred(&self, queue: &str) -> String {
        self.of("deferred:", queue)
    }

    /// Set: the tiers of limits that have a line. A tier goes when its line is empty.
    #[must_use]
    pub fn lines(&self) -> String {
        self.key("lines")
    }

    /// Sorted set: work that waits for its turn at a tier of limits, as `<queue>|<member>`, by its place; one per tier.
    #[must_use]
    pub fn line(&self, tier: &str) -> String {
        self.of("line:", tier)
    }

    /// Hash: the clocks by which a line is fair between tenants. Goes when the line is empty.
    #[must_use]
    pub fn turns(&self, tier: &str) -> String {
        self.of("turns:", tier)
    }

    /// Hash: a run: state, input, settings, counters, one record and output per step. Expires after its retention.
    #[must_use]
    pub fn run(&self, id: &str) -> String {
        self.of("run:", id)
    }

    /// Stream: a run's audit records. Expires with the run.
    #[must_use]
    pub fn audit(&self, run: &str) -> String {
        self.of("audit:", run)
    }

    /// Hash: inputs, records and outputs of a `for_each`'s items. Expires with the run.
    #[must_use]
    pub fn items(&self, run: &str, step: u32) -> String {
        format!("{}items:{run}:{step}", self.prefix)
    }

    /// Hash: what the waiting steps of a run have not read yet, who of them listens, and signals that came early. Goes with the run's end.
    #[must_use]
    pub fn mail(&self, run: &str) -> String {
        self.of("mail:", run)
    }

    /// Stream: events that runs published, as `CloudEvents` in JSON. Bounded by count.
    #[must_use]
    pub fn events(&self) -> String {
        self.key("events")
    }

    /// Set: the steps that listen for published events, as `<name> <run> <step>`.
    #[must_use]
    pub fn ears(&self) -> String {
        self.key("ears")
    }

    /// Sorted set: runs that have not ended, by deadline.
    #[must_use]
    pub fn live(&self) -> String {
        self.key("live")
    }

    /// Sorted set: runs that have ended and are kept, by end time.
    #[must_use]
    pub fn ended(&self) -> String {
        self.key("ended")
    }

    /// Sorted set: all runs that are kept, by their start.
    #[must_use]
    pub fn started(&self) -> String {
        self.key("started")
    }

    /// Sorted set: the runs with a label, by their start.
    #[must_use]
    pub fn label(&self, label: &str) -> String {
        self.of("label:", label)
    }

    /// Hash: the labels of each run that has any, as JSON.
    #[must_use]
    pub fn labelled(&self) -> String {
        self.key("labelled")
    }

    /// Sorted set: the runs that a run has asked for, by their start.
    #[must_use]
    pub fn children(&self, run: &str) -> String {
        self.of("children:", run)
    }

    /// Hash: the groups whose names belong here and that have runs, with how many of each may run at once.
    #[must_use]
    pub fn groups(&self) -> String {
        self.key("groups")
    }

    /// Sorted set: the runs of a group that run or may start, by when they were asked for.
    #[must_use]
    pub fn group(&self, name: &str) -> String {
        self.of("group:", name)
    }

    /// Sorted set: the runs that wait for their turn in a group, by when they were asked for.
    #[must_use]
    pub fn group_waiting(&self, name: &str) -> String {
        self.of("group_waiting:", name)
    }

    /// Sorted set: ids of jobs and runs that were cancelled or ended early, by time; kept for a day.
    #[must_use]
    pub fn cancelled(&self) -> String {
        self.key("cancelled")
    }

    /// String: a result. Expires after the job's `result_ttl_ms`.
    #[must_use]
    pub fn result(&self, id: &str) -> String {
        self.of("result:", id)
    }

    /// String: the first entry of a caller's id. Expires after the id's retention.
    #[must_use]
    pub fn id(&self, id: &str) -> String {
        self.of("id:", id)
    }

    /// Hash: each process's liveness counter.
    #[must_use]
    pub fn beats(&self) -> String {
        self.key("beats")
    }

    /// Hash: each process's description as JSON.
    #[must_use]
    pub fn members(&self) -> String {
        self.key("members")
    }

    /// Set: the jobs that a restore under way has put back. Deleted at its end.
    #[must_use]
    pub fn restored(&self) -> String {
        self.key("restored")
    }

    /// Set: the queues ever used.
    #[must_use]
    pub fn queues(&self) -> String {
        self.key("queues")
    }

    /// Hash: the tools that workers run, with their kind and input schema as JSON.
    #[must_use]
    pub fn tools(&self) -> String {
        self.key("tools")
    }

    /// Hash: each workflow's newest active version; 0 where none is active.
    #[must_use]
    pub fn workflows(&self) -> String {
        self.key("workflows")
    }

    /// Hash: a workflow's definitions by version.
    #[must_use]
    pub fn workflow(&self, name: &str) -> String {
        self.of("workflow:", name)
    }

    /// Hash: of a workflow's versions where each stands in its life, the digest of its text, and when it was published.
    #[must_use]
    pub fn versions(&self, name: &str) -> String {
        self.of("versions:", name)
    }

    /// Stream: what happened to versions of workflows. Bounded by count.
    #[must_use]
    pub fn workflow_changes(&self) -> String {
        self.key("workflow_changes")
    }

    /// Hash: the pool's execution mode, who switched it last, when and why. In the home partition.
    #[must_use]
    pub fn mode(&self) -> String {
        self.key("mode")
    }

    /// Stream: switches of the pool's execution mode. Bounded by count.
    #[must_use]
    pub fn mode_changes(&self) -> String {
        self.key("mode_changes")
    }

    /// Hash: by execution mode, how many runs started and ended and how long they took.
    #[must_use]
    pub fn mode_runs(&self) -> String {
        self.key("mode_runs")
    }

    /// Hash: what is paused: `workflow <name>` and `queue <name>`, with who, when and why. In the home partition.
    #[must_use]
    pub fn paused(&self) -> String {
        self.key("paused")
    }

    /// Stream: what people did to runs, workflows and queues by hand. Bounded by count.
    #[must_use]
    pub fn operations(&self) -> String {
        self.key("operations")
    }

    /// Hash: cron entries by name, as JSON.
    #[must_use]
    pub fn crons(&self) -> String {
        self.key("crons")
    }

    /// Sorted set: cron entries by their next time.
    #[must_use]
    pub fn cron_due(&self) -> String {
        self.key("cron_due")
    }

    /// Hash: when each cron entry fired last.
    #[must_use]
    pub fn cron_fired(&self) -> String {
        self.key("cron_fired")
    }

    /// Whether a caller may have replies pushed onto this stream: any key outside the namespace's own, or `…:reply:<name>`.
    /// In a cluster it must carry the partition's tag.
    #[must_use]
    pub fn may_reply_to(&self, stream: &str, namespace: &str, cluster: bool) -> bool {
        let own = stream.strip_prefix(namespace).is_some_and(|rest| rest.starts_with(":{"));
        let tagged = stream.starts_with(&self.prefix);
        (!own || (tagged && stream.get(self.prefix.len()..).is_some_and(|rest| rest.starts_with("reply:"))))
            && (tagged || !cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn all_keys_of_a_partition_carry_its_tag() {
        let keys = Keys::new("tm", 3);
        for key in [keys.jobs("default"), keys.runs(), keys.run("r1"), keys.items("r1", 4), keys.dead()] {
            assert!(key.starts_with("tm:{3}:"), "{key}");
        }
        assert_eq!(keys.jobs("default"), "tm:{3}:jobs:default");
    }

    #[test]
    fn replies_go_nowhere_that_could_forge_work() {
        let keys = Keys::new("tm", 0);
        assert!(keys.may_reply_to("my-replies", "tm", false));
        assert!(keys.may_reply_to("tm:{0}:reply:a", "tm", true));
        assert!(!keys.may_reply_to("tm:{0}:jobs:default", "tm", false));
        assert!(!keys.may_reply_to("tm:{1}:reply:a", "tm", true));
        assert!(!keys.may_reply_to("my-replies", "tm", true));
    }
}
