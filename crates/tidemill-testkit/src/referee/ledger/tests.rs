use std::collections::BTreeMap;

use super::*;
use crate::referee::{
    report::{Report, Shares},
    rules::{Dialect, Latency},
};

const MS: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn call(key: &str, tokens: u64) -> Call {
    Call { key: key.to_owned(), input_tokens: tokens, ..Call::default() }
}

fn judge(ledger: &mut Ledger, at_ms: u64, tokens: u64) -> Verdict {
    let decision = ledger.judge(at_ms * MS, &call("", tokens));
    ledger.end(at_ms * MS, decision.place, Some(200));
    decision.verdict
}

fn report(ledger: &Ledger) -> Report {
    Report::new(Duration::ZERO, ledger.arrivals().to_vec(), ledger.epochs().to_vec())
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

#[test]
fn the_call_above_the_limit_is_refused_until_the_oldest_leaves() {
    let mut ledger = Ledger::new(Rules::default().requests(3, SECOND));
    for at in [0, 10, 20] {
        assert_eq!(judge(&mut ledger, at, 0), Verdict::Admitted);
    }
    let refused = ledger.judge(999 * MS, &call("", 0));
    assert_eq!(refused.verdict, Verdict::Refused(Rule::Requests));
    assert_eq!(refused.wait, Some(Duration::from_millis(1)));
    assert_eq!(judge(&mut ledger, 1_000, 0), Verdict::Admitted);
    assert_eq!(judge(&mut ledger, 1_009, 0), Verdict::Refused(Rule::Requests));
}

#[test]
fn a_burst_at_the_turn_of_a_fixed_window_does_not_escape() {
    let mut ledger = Ledger::new(Rules::default().requests(10, SECOND));
    for at in (990..1_000).chain(1_000..1_010) {
        judge(&mut ledger, at, 0);
    }
    let report = report(&ledger);
    assert_eq!((report.admitted, report.violations), (10, 10));
    assert!(close(report.worst_window.requests_share, 2.0), "{report}");
    assert_eq!(report.most_in(Duration::from_millis(20)).calls, 20);
}

#[test]
fn the_limit_plus_one_is_seen_exactly() {
    let mut ledger = Ledger::new(Rules::default().requests(600, 60 * SECOND));
    for index in 0..600 {
        assert_eq!(judge(&mut ledger, index * 99, 0), Verdict::Admitted);
    }
    assert_eq!(report(&ledger).worst_window.requests_share.to_bits(), 1.0_f64.to_bits());
    assert_eq!(judge(&mut ledger, 59_999, 0), Verdict::Refused(Rule::Requests));
    assert!(report(&ledger).worst_window.requests_share > 1.0);
}

#[test]
fn every_quota_and_the_concurrency_hold_at_once() {
    let rules = Rules::default().requests(3, SECOND).tokens(100, 2 * SECOND).concurrency(2);
    let mut ledger = Ledger::new(rules);
    assert_eq!(judge(&mut ledger, 0, 90), Verdict::Admitted);
    assert_eq!(judge(&mut ledger, 1, 11), Verdict::Refused(Rule::Tokens));
    let first = ledger.judge(2 * MS, &call("", 0));
    let second = ledger.judge(3 * MS, &call("", 0));
    assert_eq!((first.verdict, second.verdict), (Verdict::Admitted, Verdict::Admitted));
    assert_eq!(judge(&mut ledger, 1_500, 1), Verdict::Refused(Rule::Concurrency));
    ledger.end(1_600 * MS, first.place, Some(200));
    assert_eq!(judge(&mut ledger, 1_700, 10), Verdict::Admitted);
    assert_eq!(ledger.together().0.most, 3, "who was refused was there too");
    assert_eq!(judge(&mut ledger, 9_000, 101), Verdict::Refused(Rule::Tokens), "never fits");
}

#[test]
fn keys_are_counted_apart_or_together() {
    let mut apart = Ledger::new(Rules::default().requests(1, SECOND));
    let mut together = Ledger::new(Rules::default().requests(1, SECOND).for_everyone());
    for key in ["a", "b"] {
        apart.judge(0, &call(key, 0));
        together.judge(0, &call(key, 0));
    }
    assert_eq!((report(&apart).violations, report(&together).violations), (0, 1));
    assert!(close(report(&apart).worst_window.requests_share, 1.0));
    assert!(close(report(&together).worst_window.requests_share, 2.0));
    assert_eq!(report(&together).per_key.get("b").map(|key| key.violations), Some(1));
}

#[test]
fn after_a_halving_who_keeps_to_the_new_pace_passes() {
    let mut ledger = Ledger::new(Rules::default().requests(100, SECOND));
    // one each 10 ms, then one each 20 ms
    for index in 0..200 {
        assert_eq!(judge(&mut ledger, index * 10, 0), Verdict::Admitted);
    }
    ledger.set(2_000 * MS, Rules::default().requests(50, SECOND));
    for index in 0..100 {
        assert_eq!(judge(&mut ledger, 2_020 + index * 20, 0), Verdict::Admitted, "call {index}");
    }
    let report = report(&ledger);
    assert!(close(report.worst_window.requests_share, 1.0), "{report}");
    let (first, second) = (Duration::from_secs(2), Duration::from_millis(4_020));
    assert!(close(report.use_share(Duration::ZERO, first).requests_share, 1.0));
    assert!(close(report.use_share(first + Duration::from_millis(20), second).requests_share, 1.0));
}

#[test]
fn after_a_halving_who_keeps_the_old_pace_is_caught() {
    let mut ledger = Ledger::new(Rules::default().requests(100, SECOND));
    for index in 0..200 {
        judge(&mut ledger, index * 10, 0);
    }
    ledger.set(2_000 * MS, Rules::default().requests(50, SECOND));
    for index in 0..200 {
        judge(&mut ledger, 2_000 + index * 10, 0);
    }
    let report = report(&ledger);
    assert!(report.worst_window.requests_share > 1.9, "{report}");
    assert!(report.violations > 80, "{report}");
    assert!(report.worst_window_of(Arrival::is_admitted).requests_share <= 1.0 + 1e-9, "{report}");
}

#[test]
fn a_change_at_once_counts_what_was_used_against_the_new_limit() {
    let at_once = |limit| Rules { change: Change::AtOnce, ..Rules::default().requests(limit, SECOND) };
    let mut ledger = Ledger::new(at_once(10));
    for at in 0..8 {
        judge(&mut ledger, at, 0);
    }
    ledger.set(100 * MS, at_once(5));
    assert_eq!(judge(&mut ledger, 100, 0), Verdict::Refused(Rule::Requests));
    assert_eq!(judge(&mut ledger, 1_003, 0), Verdict::Admitted, "four of them are left");
}

#[test]
fn calls_under_way_still_count_after_a_change() {
    let mut ledger = Ledger::new(Rules::default().concurrency(1));
    let first = ledger.judge(0, &call("", 0));
    ledger.set(MS, Rules::default().concurrency(1));
    assert_eq!(judge(&mut ledger, 2, 0), Verdict::Refused(Rule::Concurrency));
    ledger.end(3 * MS, first.place, Some(200));
    assert_eq!(judge(&mut ledger, 4, 0), Verdict::Admitted);
}

#[test]
fn what_is_told_of_a_quota_is_what_is_left_of_it() {
    let rules = Rules::default().requests(5, SECOND).tokens(100, 10 * SECOND).headers(Dialect::OpenAi);
    let mut ledger = Ledger::new(rules);
    judge(&mut ledger, 0, 30);
    let told = ledger.judge(500 * MS, &call("", 20)).standing;
    let left: Vec<_> = told.iter().map(|one| (one.remaining, one.empty_in.as_millis())).collect();
    assert_eq!(left, [(3, 1_000), (50, 10_000)]);
}

#[test]
fn scripts_strike_in_their_time_and_chance_by_its_seed() {
    let rules = Rules::default().failing(0.3, Fault::ERROR).seed(7);
    let faults = |ledger: &mut Ledger| -> Vec<_> {
        (0..2_000).map(|at| ledger.judge(at * MS, &call("", 0)).fault).collect()
    };
    let mut ledger = Ledger::new(rules.clone());
    ledger.script(100 * MS, 200 * MS, Fault::Hang);
    let struck = faults(&mut ledger);
    let hung: Vec<_> = struck.iter().map(|fault| *fault == Some(Fault::Hang)).collect();
    assert!(hung.iter().enumerate().all(|(at, hung)| *hung == (100..200).contains(&at)));
    let failed = struck.iter().filter(|fault| **fault == Some(Fault::ERROR)).count();
    assert!((500..640).contains(&failed), "{failed} of 1900");
    let unscripted = faults(&mut Ledger::new(rules));
    assert_eq!(struck.get(200..), unscripted.get(200..), "a script leaves the dice alone");
}

#[test]
fn latencies_follow_their_law() {
    let least = Duration::from_millis(10);
    let law = Latency::HeavyTailed { least, shape: 1.1, at_most: Duration::from_secs(5) };
    let mut ledger = Ledger::new(Rules::default().latency(law));
    let mut drawn: Vec<_> = (0..4_000).map(|at| ledger.judge(at, &call("", 0)).latency).collect();
    drawn.sort_unstable();
    let at = |part: usize| drawn.get(drawn.len() * part / 1_000).copied().unwrap_or_default();
    assert!(drawn.first().is_some_and(|first| *first >= least));
    assert!((17..21).contains(&at(500).as_millis()), "median {:?}", at(500));
    assert!((400..1_100).contains(&at(990).as_millis()), "p99 {:?}", at(990));
    assert!(drawn.last().is_some_and(|last| *last <= Duration::from_secs(5)));
    let even = Latency::Uniform(least, 3 * least);
    assert_eq!((even.at(0.0), even.at(0.5), even.at(1.0)), (least, 2 * least, 3 * least));
}

/// The rule as it is spoken, over every call before: what the referee must agree with.
fn naive(history: &[(u64, u64, Verdict)], at: u64, tokens: u64) -> bool {
    let within = |window: u64| {
        history.iter().filter(move |call| call.2 == Verdict::Admitted && call.0 + window > at).copied()
    };
    within(700 * MS).count() < 20 && within(1_900 * MS).map(|call| call.1).sum::<u64>() + tokens <= 400
}

#[test]
fn random_histories_are_judged_as_the_rule_is_spoken() {
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let rules = Rules::default()
            .requests(20, Duration::from_millis(700))
            .tokens(400, Duration::from_millis(1_900));
        let mut ledger = Ledger::new(rules);
        let (mut history, mut at) = (Vec::new(), 0);
        for _ in 0..1_000 {
            at += random.random_range(0..60 * MS);
            let tokens = random.random_range(0..60);
            let decision = ledger.judge(at, &call("", tokens));
            let expected = naive(&history, at, tokens);
            assert_eq!(decision.verdict == Verdict::Admitted, expected, "seed {seed} at {at}");
            history.push((at, tokens, decision.verdict));
        }
        let windows = naive_worst(&history);
        let seen = report(&ledger).worst_window;
        assert!(close(seen.requests_share, windows.requests_share), "{seen:?} {windows:?}");
        assert!(close(seen.tokens_share, windows.tokens_share), "{seen:?} {windows:?}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn naive_worst(history: &[(u64, u64, Verdict)]) -> Shares {
    let mut worst = Shares::default();
    for end in history {
        let within =
            |window: u64| history.iter().filter(move |call| call.0 <= end.0 && call.0 + window > end.0);
        worst.requests_share = worst.requests_share.max(within(700 * MS).count() as f64 / 20.0);
        let tokens: u64 = within(1_900 * MS).map(|call| call.1).sum();
        worst.tokens_share = worst.tokens_share.max(tokens as f64 / 400.0);
    }
    worst
}

#[test]
fn groups_bursts_and_keys_are_found_in_the_log() {
    let mut ledger = Ledger::new(Rules::default());
    for (at, key) in [(0, "a"), (1, "b"), (2, "a"), (5_000, "c"), (5_003, "a"), (10_010, "d")] {
        let call = Call { idempotency_key: Some(key.to_owned()), ..Call::default() };
        ledger.judge(at * MS, &call);
    }
    let report = report(&ledger);
    let sizes: Vec<_> = report.groups(SECOND).iter().map(|group| group.calls).collect();
    assert_eq!(sizes, [3, 2, 1]);
    let burst = report.most_in(Duration::from_millis(2));
    assert_eq!((burst.calls, burst.from, burst.to), (2, Duration::ZERO, Duration::from_millis(1)));
    let by_key: BTreeMap<String, usize> =
        report.per_idempotency_key().into_iter().map(|(key, calls)| (key.to_string(), calls)).collect();
    assert_eq!(by_key, [("a", 3), ("b", 1), ("c", 1), ("d", 1)].map(|(key, n)| (key.to_owned(), n)).into());
    assert_eq!(report.between(SECOND, 10 * SECOND).count(), 2);
}
