//! A small workflow as a plan would dispatch it: `a` and `b` at once, then `c`.

use std::time::Duration;

use tidemill_protocol::{AuditRecord, EntryId, StepState};
use tidemill_store::{
    ClaimedEntry, Dependent, Mode, NewRun, RootStep, RunRecord, Settled, Slot, Started, StepOutcome, keys,
};

use crate::pool::{Pool, claim, field};

pub(crate) const WF: &str = "flow@1";
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Asks for a run and starts it.
pub(crate) async fn start(pool: &Pool, id: &str) {
    start_with(pool, id, 60_000, vec![("in", b"{\"n\":1}")]).await;
}

pub(crate) async fn start_with(pool: &Pool, id: &str, deadline_ms: u64, fields: Vec<(&str, &[u8])>) {
    let mut scheduler = pool.scheduler("s1");
    pool.xadd(&pool.keys().runs(), &["workflow", "flow", "id", id]).await;
    let asked = claim(&mut scheduler, keys::RUNS, 1).await;
    let roots = [("a", 0), ("b", 1)].map(|(name, step)| RootStep { step, name, target: 0 }).to_vec();
    let run = NewRun {
        entry: &asked[0].entry,
        id,
        workflow: WF,
        deadline_ms,
        fields,
        labels: &tidemill_protocol::NO_LABELS,
        parent: None,
        given: Vec::new(),
        roots,
        more: None,
    };
    let started = pool.home().start("s1", &["default".to_owned()], &[run]).await.unwrap();
    assert_eq!(started, [Started::Running]);
}

pub(crate) fn step_of(entry: &ClaimedEntry) -> u32 {
    field(entry, "step").unwrap().parse().unwrap()
}

pub(crate) fn slot(run: &str, step: u32) -> Slot {
    Slot { run: run.to_owned(), step, item: None, name: NAMES[step as usize].to_owned() }
}

pub(crate) fn outcome<'a>(entry: &'a EntryId, id: &'a str, step: u32, to: StepState) -> StepOutcome<'a> {
    let succeeded = to == StepState::Succeeded;
    StepOutcome {
        entry,
        run: id,
        workflow: WF,
        step: Some(step),
        name: NAMES[step as usize],
        to,
        attempt: 1,
        ran: Duration::from_millis(3),
        output: if succeeded { b"{\"ok\":true}" } else { b"" },
        error: if succeeded { "" } else { "{\"code\":\"boom\",\"message\":\"it broke\"}" },
        code: if succeeded { "" } else { "boom" },
        reason: if succeeded { "" } else { "it broke" },
        steps: 3,
        mode: Mode {
            success: succeeded,
            fails_run_now: !succeeded,
            gives_output: step == 2,
            ..Mode::default()
        },
        retention_ms: 60_000,
        publishes: false,
        reply_to: None,
        more: None,
        dependents: if step == 2 {
            Vec::new()
        } else {
            vec![Dependent { step: 2, name: "c", ended: 2, ok: 0, target: 0 }]
        },
    }
}

pub(crate) async fn settle(pool: &Pool, outcomes: &[StepOutcome<'_>]) -> Vec<Settled> {
    pool.home().settle_steps("default", "w1", &["default".to_owned()], outcomes).await.unwrap()
}

pub(crate) async fn run(pool: &Pool, id: &str) -> RunRecord {
    pool.home().run(id).await.unwrap().unwrap()
}

/// The run's audit, after the check that it has no gap and ends where the run stands.
pub(crate) async fn audit(pool: &Pool, id: &str) -> Vec<AuditRecord> {
    let audit = pool.home().audit(id, 0, 100_000).await.unwrap();
    let run = run(pool, id).await;
    let seqs: Vec<u64> = audit.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=run.seq).collect::<Vec<_>>(), "the audit of {id} has a gap");
    audit
}

pub(crate) fn moves(audit: &[AuditRecord], subject: &str) -> Vec<String> {
    let of = audit.iter().filter(|record| record.subject == subject);
    of.map(|record| format!("{} {}", record.from, record.to)).collect()
}
