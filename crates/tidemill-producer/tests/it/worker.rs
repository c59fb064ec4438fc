//! What workers and schedulers do, as far as the producer's answers depend on it.

use std::time::Duration;

use tidemill_protocol::{EntryId, Payload, StepState, result_head};
use tidemill_store::{
    ClaimedEntry, Completion, Dependent, Member, Mode, NewRun, Parking, Partition, RootStep, Settled,
    Started, StepOutcome, keys,
};

use crate::door::Door;

pub(crate) const FLOW: &str = "name: flow\nversion: 1\ninput: {type: object, required: [n], properties: {n: {type: integer}}}\nsteps:\n  - {id: a, tool: echo}\n  - {id: b, tool: echo}\n  - {id: c, tool: echo, needs: [a, b]}\n";

pub(crate) async fn claim(door: &Door, group: &'static str, queue: &str, count: usize) -> Vec<ClaimedEntry> {
    let consumer = if group == keys::WORKERS { "w1" } else { "s1" };
    let mut claimer = door.store.claimer(0, group, consumer, Duration::from_secs(2)).unwrap();
    claimer.create_groups(std::iter::once(queue)).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let more = claimer.claim(&[(queue, count - all.len())], true).await.unwrap();
        assert!(!more.is_empty(), "only {} of {count} entries came", all.len());
        all.extend(more.into_iter().flat_map(|(_, entries)| entries));
    }
    all
}

pub(crate) fn field(entry: &ClaimedEntry, name: &str) -> Option<String> {
    // a part of a run says which in one field: run, workflow, step, item
    let word = ["run", "wf", "step", "item"].iter().position(|word| *word == name);
    let stored = if word.is_some() { "run" } else { name };
    let found = entry.fields.iter().find(|(field, _)| &**field == stored.as_bytes());
    let text = found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())?;
    word.map_or_else(|| Some(text.clone()), |word| text.split(' ').nth(word).map(str::to_owned))
}

/// Ends a claimed job well.
pub(crate) async fn complete(door: &Door, entry: &EntryId, id: &str, output: &str) {
    let payload = Payload::json(output.to_owned());
    let head = result_head(id, StepState::Succeeded, Some(&payload), None, 1);
    let job = Completion { entry, id, head: &head, ttl_ms: 60_000, reply_to: None };
    assert_eq!(door.home().complete("default", &[job]).await.unwrap(), [true]);
}

/// Starts a requested run of `flow`.
pub(crate) async fn start(door: &Door, id: &str) {
    let asked = claim(door, keys::SCHEDULERS, keys::RUNS, 1).await;
    let roots = [("a", 0), ("b", 1)].map(|(name, step)| RootStep { step, name, target: 0 }).to_vec();
    let labels = field(&asked[0], "labels").unwrap_or_else(|| "{}".to_owned());
    let labels = tidemill_protocol::Labels::parse(labels.as_bytes()).unwrap();
    let run = NewRun {
        entry: &asked[0].entry,
        id,
        workflow: "flow@1",
        deadline_ms: 60_000,
        fields: vec![("in", b"{\"n\":1}"), ("rms", b"60000")],
        labels: &labels,
        parent: None,
        given: Vec::new(),
        roots,
        more: None,
    };
    let started = door.home().start("s1", &["default".to_owned()], &[run]).await.unwrap();
    assert_eq!(started, [Started::Running]);
}

/// Claims and ends the steps of `flow` that are in its queue.
pub(crate) async fn settle(door: &Door, id: &str, count: usize) -> Vec<Settled> {
    let entries = claim(door, keys::WORKERS, "default", count).await;
    let mut settled = Vec::new();
    for entry in &entries {
        let step: u32 = field(entry, "step").unwrap().parse().unwrap();
        let outcome = outcome(&entry.entry, id, step);
        let targets = ["default".to_owned()];
        settled.extend(door.home().settle_steps("default", "w1", &targets, &[outcome]).await.unwrap());
    }
    settled
}

fn outcome<'a>(entry: &'a EntryId, id: &'a str, step: u32) -> StepOutcome<'a> {
    let last = step == 2;
    let next = Dependent { step: 2, name: "c", ended: 2, ok: 0, target: 0 };
    StepOutcome {
        entry,
        run: id,
        workflow: "flow@1",
        step: Some(step),
        name: ["a", "b", "c"][step as usize],
        to: StepState::Succeeded,
        attempt: 1,
        ran: Duration::from_millis(3),
        output: b"{\"ok\":true}",
        error: "",
        code: "",
        reason: "",
        steps: 3,
        mode: Mode { success: true, gives_output: last, ..Mode::default() },
        retention_ms: 60_000,
        publishes: false,
        reply_to: None,
        more: None,
        dependents: if last { Vec::new() } else { vec![next] },
    }
}

pub(crate) async fn announce(door: &Door, consumer: &str, queues: &[&str]) {
    let member = Member {
        reads_first: false,
        consumer: consumer.to_owned(),
        role: "worker".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        slots: 8,
        started_at_ms: 1,
    };
    door.home().announce(&member).await.unwrap();
}

/// Parks claimed jobs in the line of a tier.
pub(crate) async fn park(door: &Door, queue: &str, tier: &str, entries: &[ClaimedEntry]) {
    park_in(door.home(), queue, tier, entries).await;
}

/// The same in a partition.
pub(crate) async fn park_in(partition: &Partition, queue: &str, tier: &str, entries: &[ClaimedEntry]) {
    let parkings: Vec<_> = entries
        .iter()
        .map(|entry| Parking {
            entry: &entry.entry,
            id: entry.entry.as_str(),
            slot: None,
            note: "limit:requests",
            attempt: 1,
            tier,
            tenant: "",
            priority: 5,
            changes: Vec::new(),
        })
        .collect();
    let done = partition.park(queue, keys::WORKERS, "w1", &parkings).await.unwrap();
    assert!(done.iter().all(|done| *done), "{done:?}");
}
