//! The fold of an audit: random legal histories fold to their state, and whatever is changed in one of them is found.
#![expect(clippy::unwrap_used, reason = "what a test needs and does not get ends the test")]

use proptest::collection::vec;
use proptest::prelude::*;
use tidemill_protocol::{AuditRecord, Flaw, Fold, RunState, StepState};

/// Steps of the histories; two of them are a `for_each` of three items.
const STEPS: usize = 5;
const EACH: usize = 2;
const ITEMS: usize = 3;

/// The subject of a number: a step, or an item of one of the first two.
fn subject(number: usize) -> String {
    match number {
        0..STEPS => format!("s{number}"),
        _ => format!("s{}[{}]", (number - STEPS) / ITEMS, (number - STEPS) % ITEMS),
    }
}

/// What the model knows of a subject.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stand {
    state: StepState,
    attempt: u32,
}

/// A legal history and the state that it leads to, kept by rules of its own: choices are taken modulo what is possible.
fn history(choices: &[(u8, u8, bool)]) -> (Vec<AuditRecord>, RunState, Vec<Stand>) {
    let mut records = Vec::new();
    let mut note = |subject: String, (from, to): (&str, &str), attempt, who: bool| {
        let seq = records.len() as u64 + 1;
        let (from, to) = (from.to_owned(), to.to_owned());
        let who = who.then(|| "w1".to_owned());
        records.push(AuditRecord { seq, subject, from, to, at_ms: 1_000 + seq, attempt, who });
    };
    let mut run = RunState::Running;
    let mut stands = vec![Stand { state: StepState::Pending, attempt: 1 }; STEPS + EACH * ITEMS];
    note("@".to_owned(), ("queued", "running"), 0, true);
    for (who_moves, where_to, by_hand) in choices {
        let number = usize::from(*who_moves) % (stands.len() + 1);
        let Some(stand) = stands.get(number).copied() else {
            let ways: Vec<_> = RunState::MOVES.iter().filter(|(from, _)| *from == run).collect();
            if let Some((from, to)) = ways.get(usize::from(*where_to) % ways.len().max(1)) {
                note("@".to_owned(), (from.as_str(), to.as_str()), 0, true);
                run = *to;
            }
            continue;
        };
        let parent = number.checked_sub(STEPS).map(|item| stands[item / ITEMS].state);
        let begins = !run.is_terminal() && parent.is_none_or(|state| state == StepState::Running);
        let ways: Vec<_> = StepState::MOVES.iter().filter(|(from, _)| *from == stand.state).collect();
        let Some((from, to)) = ways.get(usize::from(*where_to) % ways.len().max(1)) else { continue };
        if stand.state == StepState::Pending && !begins {
            continue;
        }
        let retries = *from == StepState::Retrying && *to == StepState::Ready && !by_hand;
        let attempt = stand.attempt + u32::from(retries);
        let follows = *from == StepState::Pending || (*to == StepState::Ready && !by_hand);
        note(subject(number), (from.as_str(), to.as_str()), attempt, !follows);
        stands[number] = Stand { state: *to, attempt };
    }
    (records, run, stands)
}

/// What a reader of the stored state would find wrong: flaws of the fold, or another end than the stored one.
fn finds(records: &[AuditRecord], last: u64, run: RunState, stands: &[Stand]) -> bool {
    let mut fold = Fold::default();
    let flaws = records.iter().map(|record| fold.apply(record).len()).sum::<usize>();
    let stored = stands.iter().enumerate().filter(|(_, stand)| stand.state != StepState::Pending);
    let differs = |(number, stand): (usize, &Stand)| {
        let course = fold.course(&subject(number));
        course.is_none_or(|course| (course.state, course.attempt) != (stand.state, stand.attempt))
    };
    let began = stored.clone().count();
    flaws > 0
        || fold.seq() != last
        || fold.run() != run
        || fold.courses().count() != began
        || stored.into_iter().any(differs)
}

fn choices() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
    vec((any::<u8>(), any::<u8>(), any::<bool>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_legal_history_folds_to_its_state(choices in choices()) {
        let (records, run, stands) = history(&choices);
        prop_assert!(!finds(&records, records.len() as u64, run, &stands));
    }

    #[test]
    fn a_dropped_record_is_found(choices in choices(), at in any::<prop::sample::Index>()) {
        let (mut records, run, stands) = history(&choices);
        let last = records.len() as u64;
        records.remove(at.index(records.len()));
        prop_assert!(finds(&records, last, run, &stands));
    }

    #[test]
    fn a_doubled_record_is_found(choices in choices(), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let (mut records, run, stands) = history(&choices);
        let last = records.len() as u64;
        let again = records[at.index(records.len())].clone();
        records.insert(to.index(records.len()), again);
        prop_assert!(finds(&records, last, run, &stands));
    }

    #[test]
    fn two_swapped_records_are_found(choices in choices(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (mut records, run, stands) = history(&choices);
        let (a, b) = (a.index(records.len()), b.index(records.len()));
        prop_assume!(a != b);
        records.swap(a, b);
        prop_assert!(finds(&records, records.len() as u64, run, &stands));
    }

    #[test]
    fn a_changed_member_of_a_record_is_found(choices in choices(), at in any::<prop::sample::Index>(), (member, value) in (0_u8..5, any::<u8>())) {
        let (mut records, run, stands) = history(&choices);
        let at = at.index(records.len());
        let before = records[at].clone();
        let record = &mut records[at];
        let other = |value: u8| StepState::ALL[usize::from(value) % StepState::ALL.len()].as_str().to_owned();
        match member {
            0 => record.seq = u64::from(value),
            1 => record.subject = if value == 0 { "@".to_owned() } else { subject(usize::from(value) % 11) },
            2 => record.from = other(value),
            3 => record.to = other(value),
            _ => record.attempt = u32::from(value),
        }
        prop_assume!(*record != before);
        prop_assert!(finds(&records, records.len() as u64, run, &stands), "{before:?} became {:?}", records[at]);
    }
}

fn record(seq: u64, text: &str) -> AuditRecord {
    AuditRecord::parse(seq, text).unwrap()
}

fn flaws(records: &[AuditRecord]) -> Vec<Flaw> {
    let mut fold = Fold::default();
    records.iter().flat_map(|record| fold.apply(record)).collect()
}

#[test]
fn one_wrong_record_makes_one_flaw() {
    let mut records = vec![
        record(1, "@ queued running 10 0 s1"),
        record(2, "a pending ready 10 1 -"),
        record(3, "a ready running 11 1 w1"),
        record(4, "a running retrying 12 1 w1"),
        record(5, "a retrying ready 13 2 -"),
        record(6, "a ready running 14 2 w1"),
        record(7, "a running succeeded 15 2 w1"),
        record(8, "@ running succeeded 15 0 w1"),
    ];
    assert_eq!(flaws(&records), []);
    records[4].seq = 6;
    assert_eq!(
        flaws(&records),
        [Flaw::Sequence { expected: 5, found: 6 }, Flaw::Sequence { expected: 7, found: 6 }]
    );
    records[4].seq = 5;
    records[6].to = "pending".to_owned();
    let found = flaws(&records);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "record 7: a made a move that does not exist: running → pending");
}

#[test]
fn nothing_begins_outside_its_run_or_its_for_each() {
    let late = [
        record(1, "@ queued running 10 0 s1"),
        record(2, "@ running cancelled 11 0 me"),
        record(3, "a pending ready 12 1 -"),
    ];
    assert_eq!(flaws(&late)[0].to_string(), "record 3: a began after its run had ended");
    assert_eq!(
        flaws(&[record(1, "a pending ready 12 1 -")])[0].to_string(),
        "record 1: a began before its run"
    );
    let outside = [
        record(1, "@ queued running 10 0 s1"),
        record(2, "a pending ready 10 1 -"),
        record(3, "a[0] pending ready 10 1 -"),
    ];
    assert_eq!(flaws(&outside)[0].to_string(), "record 3: a[0] began while its for_each was not running");
}

#[test]
fn what_is_brought_back_before_its_next_attempt_is_still_in_the_one_before() {
    let repaired = [
        record(1, "@ queued running 10 0 s1"),
        record(2, "a pending ready 10 1 -"),
        record(3, "a ready running 11 1 w1"),
        record(4, "a running retrying 12 1 w1"),
        record(5, "a retrying ready 13 1 s1"),
    ];
    assert_eq!(flaws(&repaired), []);
}
