//! What the breaker promises, over random histories.

use proptest::prelude::*;

use super::{Breaker, BreakerState, CallOutcome, DICE, Ended, Passage, SECOND};
use crate::limit::laws::config;
use crate::service::{BreakerRules, Window};

const START: u64 = 1_763_750_000_000_000;

fn rules() -> BreakerRules {
    BreakerRules {
        window: Window::Time,
        window_us: 10 * SECOND,
        window_calls: 0,
        min_calls: 10,
        failure_ratio: 0.5,
        slow_us: 0,
        slow_ratio: 1.0,
        open_us: 5 * SECOND,
        max_open_us: 60 * SECOND,
        probes: 3,
        probe_timeout_us: 30 * SECOND,
    }
}

/// A call that is under way.
#[derive(Debug, Clone, Copy)]
struct Call {
    at_us: u64,
    epoch: u64,
    probe: bool,
}

/// A breaker and the calls that it let pass.
struct Service {
    breaker: Breaker,
    now_us: u64,
    under_way: Vec<Call>,
}

impl Service {
    fn of(rules: BreakerRules) -> Self {
        Self { breaker: Breaker::new(rules), now_us: START, under_way: Vec::new() }
    }

    fn call(&mut self) -> Passage {
        let passage = self.breaker.ask(self.now_us, DICE / 2);
        if !matches!(passage, Passage::Held(_)) {
            let probe = passage == Passage::Probe;
            if probe {
                self.breaker.probing(self.now_us);
            }
            self.under_way.push(Call { at_us: self.now_us, epoch: self.breaker.epoch(), probe });
        }
        passage
    }

    fn end(&mut self, index: usize, outcome: CallOutcome) -> Option<Call> {
        let index = index.checked_rem(self.under_way.len())?;
        let call = self.under_way.remove(index);
        let latency_us = self.now_us - call.at_us;
        let ended = Ended { outcome, latency_us, epoch: call.epoch, probe: call.probe };
        self.breaker.record(self.now_us, &ended, DICE / 2);
        Some(call)
    }

    fn ends(&mut self, count: usize, outcome: CallOutcome) {
        for _ in 0..count {
            self.end(0, outcome);
        }
    }

    fn calls(&mut self, count: usize, outcome: CallOutcome) {
        for _ in 0..count {
            self.call();
            self.end(0, outcome);
        }
    }

    /// Until it becomes half-open.
    fn wait(&mut self) -> u64 {
        let before = self.now_us;
        if let BreakerState::Open { until_us } = self.breaker.state() {
            self.now_us = until_us;
        }
        self.now_us - before
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many milliseconds pass.
    Pass(u64),
    /// So many calls ask at once.
    Call(u32),
    /// A call that is under way ends.
    End(usize, CallOutcome),
}

fn ops(failing: u32) -> impl Strategy<Value = Vec<Op>> {
    let outcome = prop_oneof![
        failing => Just(CallOutcome::Failed),
        10 - failing => Just(CallOutcome::Ok),
        1 => Just(CallOutcome::Neutral),
        1 => Just(CallOutcome::Throttled),
    ];
    let pass = prop_oneof![20 => 0..300_u64, 2 => 1_000..7_000_u64, 1 => 25_000..70_000_u64];
    let op = prop_oneof![
        2 => pass.prop_map(Op::Pass),
        3 => (1..6_u32).prop_map(Op::Call),
        9 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Op::End(index, outcome)),
    ];
    prop::collection::vec(op, 1..400)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_half_open_period_grants_its_probes_and_no_more(probes in 1..6_u64, ops in (2..9_u32).prop_flat_map(ops)) {
        let mut service = Service::of(BreakerRules { probes, ..rules() });
        // granted in this period, and those of them that said nothing about the service
        let (mut granted, mut void) = (0, 0);
        for op in ops {
            let before = service.breaker.state();
            match op {
                Op::Pass(ms) => service.now_us += ms * 1_000,
                Op::Call(count) => {
                    for _ in 0..count {
                        let epoch = service.breaker.epoch();
                        let was_half_open = service.breaker.state() == BreakerState::HalfOpen;
                        let passage = service.call();
                        let same = was_half_open && service.breaker.epoch() == epoch;
                        (granted, void) = if same { (granted, void) } else { (0, 0) };
                        match service.breaker.state() {
                            BreakerState::HalfOpen => {
                                granted += u64::from(passage == Passage::Probe);
                                prop_assert!(passage != Passage::Free);
                                prop_assert!(granted <= probes + void, "{granted} of {probes}");
                            }
                            BreakerState::Open { until_us } => {
                                prop_assert_eq!(passage, Passage::Held(until_us - service.now_us));
                            }
                            _ => prop_assert_eq!(passage, Passage::Free),
                        }
                    }
                }
                Op::End(index, outcome) => {
                    let epoch = service.breaker.epoch();
                    let ended = service.end(index, outcome);
                    let stale = ended.is_some_and(|call| call.epoch != epoch);
                    prop_assert!(!stale || service.breaker.state() == before, "a call of another epoch moved it");
                    void += u64::from(!stale && matches!(outcome, CallOutcome::Neutral | CallOutcome::Throttled));
                }
            }
        }
    }

    #[test]
    fn a_service_that_heals_is_called_again(ops in (3..9_u32).prop_flat_map(ops), probes in 1..6_u64) {
        let mut service = Service::of(BreakerRules { probes, ..rules() });
        for op in ops {
            match op {
                Op::Pass(ms) => service.now_us += ms * 1_000,
                Op::Call(count) => (0..count).for_each(|_| { service.call(); }),
                Op::End(index, outcome) => { service.end(index, outcome); }
            }
        }
        // those who were calling are gone; from here all is well, and a call comes twice a second
        service.under_way.clear();
        let mut free = 0;
        for _ in 0..400 {
            service.now_us += SECOND / 2;
            free += u32::from(service.call() == Passage::Free);
            service.end(0, CallOutcome::Ok);
        }
        prop_assert!(free > 0 && service.breaker.state() == BreakerState::Closed, "{:?}", service.breaker);
    }

    #[test]
    fn a_window_by_count_opens_with_the_share_of_its_last_calls(
        calls in prop::collection::vec(prop::bool::weighted(0.4), 1..200), most in 1..30_u64, min_calls in 1..30_u64, percent in 1..101_u8,
    ) {
        let ratio = f64::from(percent) / 100.0;
        let rules = BreakerRules { window: Window::Count, window_us: 0, window_calls: most, min_calls, failure_ratio: ratio, ..rules() };
        let mut service = Service::of(rules);
        for end in 1..=calls.len() {
            service.calls(1, if calls[end - 1] { CallOutcome::Failed } else { CallOutcome::Ok });
            let last = &calls[end.saturating_sub(usize::try_from(most).unwrap())..end];
            let failed = last.iter().filter(|failed| **failed).count();
            let opens = calls[end - 1] && last.len() as u64 >= min_calls && failed as f64 / last.len() as f64 >= ratio;
            prop_assert_eq!(matches!(service.breaker.state(), BreakerState::Open { .. }), opens, "{:?}", last);
            if opens {
                break;
            }
        }
    }

    #[test]
    fn a_window_by_time_counts_its_ten_buckets(
        calls in prop::collection::vec((0..3_000_u64, prop::bool::weighted(0.4)), 1..200), min_calls in 1..30_u64,
    ) {
        let mut service = Service::of(BreakerRules { min_calls, ..rules() });
        let mut log = Vec::new();
        for (ms, bad) in calls {
            service.now_us += ms * 1_000;
            service.calls(1, if bad { CallOutcome::Failed } else { CallOutcome::Ok });
            log.push((service.now_us / SECOND, bad));
            let newest = service.now_us / SECOND;
            let held = log.iter().filter(|(second, _)| newest - second < 10);
            let (all, failed) = held.fold((0, 0), |(all, failed), (_, bad)| (all + 1, failed + u64::from(*bad)));
            let opens = bad && all >= min_calls && failed * 2 >= all;
            prop_assert_eq!(matches!(service.breaker.state(), BreakerState::Open { .. }), opens, "{} of {}", failed, all);
            if opens {
                break;
            }
        }
    }
}

#[test]
fn it_opens_for_longer_each_time_and_closes_for_good() {
    let mut service = Service::of(rules());
    service.calls(10, CallOutcome::Failed);
    let mut periods = Vec::new();
    for _ in 0..6 {
        periods.push(service.wait());
        service.calls(3, CallOutcome::Failed);
    }
    let half_dice = [5_250_000, 10_500_000, 21_000_000, 42_000_000, 63_000_000, 63_000_000];
    assert_eq!(periods, half_dice, "doubled, at most a minute, half of a tenth more");
    service.wait();
    service.calls(3, CallOutcome::Ok);
    assert_eq!(service.breaker.state(), BreakerState::Closed);
    service.calls(9, CallOutcome::Failed);
    assert_eq!(service.breaker.state(), BreakerState::Closed, "the window was emptied");
    service.calls(1, CallOutcome::Failed);
    assert_eq!(service.wait(), 5_250_000);
}

#[test]
fn calls_from_before_an_opening_tell_nothing() {
    let mut service = Service::of(rules());
    for _ in 0..40 {
        service.call();
    }
    let late = service.under_way.split_off(10);
    service.ends(10, CallOutcome::Failed);
    assert!(matches!(service.breaker.state(), BreakerState::Open { .. }));
    service.wait();
    service.under_way = late;
    service.ends(10, CallOutcome::Failed);
    assert_eq!(service.call(), Passage::Probe, "half-open, and none of the three used");
    let late = std::mem::take(&mut service.under_way);
    service.under_way = late[late.len() - 1..].to_vec();
    service.end(0, CallOutcome::Ok);
    service.calls(2, CallOutcome::Ok);
    assert_eq!(service.breaker.state(), BreakerState::Closed);
    service.under_way = late[..late.len() - 1].to_vec();
    service.ends(20, CallOutcome::Failed);
    assert_eq!(service.breaker.state(), BreakerState::Closed);
}

#[test]
fn a_probe_that_stays_silent_has_failed() {
    let mut service = Service::of(rules());
    service.calls(10, CallOutcome::Failed);
    service.wait();
    for _ in 0..3 {
        assert_eq!(service.call(), Passage::Probe);
    }
    service.now_us += 30 * SECOND;
    assert!(matches!(service.call(), Passage::Held(250_000)));
    service.now_us += 1;
    assert_eq!(service.call(), Passage::Held(10_500_000), "open again, for twice as long");
    service.end(0, CallOutcome::Ok);
    assert!(matches!(service.breaker.state(), BreakerState::Open { .. }), "too late");
}

#[test]
fn a_service_that_is_called_once_a_minute_is_probed_at_leisure() {
    let mut service = Service::of(rules());
    service.calls(10, CallOutcome::Failed);
    service.wait();
    for _ in 0..3 {
        service.now_us += 60 * SECOND;
        assert_eq!(service.call(), Passage::Probe);
        // somebody else asks while it runs
        let asked = service.breaker.ask(service.now_us + SECOND, 0);
        assert!(matches!(asked, Passage::Probe | Passage::Held(250_000)), "{asked:?}");
        service.now_us += 2 * SECOND;
        service.end(0, CallOutcome::Ok);
    }
    assert_eq!(service.breaker.state(), BreakerState::Closed);
}

#[test]
fn slow_calls_open_it_too() {
    let mut service = Service::of(BreakerRules { slow_us: SECOND, slow_ratio: 0.8, ..rules() });
    for latency in [SECOND, SECOND - 1] {
        service.breaker.close();
        for _ in 0..10 {
            service.call();
        }
        service.now_us += latency;
        service.ends(10, CallOutcome::Ok);
        let opened = matches!(service.breaker.state(), BreakerState::Open { .. });
        assert_eq!(opened, latency == SECOND, "{latency} us");
    }
}

#[test]
fn people_have_the_last_word() {
    let mut service = Service::of(rules());
    service.breaker.force_open();
    service.now_us += 3_600 * SECOND;
    assert_eq!(service.call(), Passage::Held(5 * SECOND));
    service.breaker.disable();
    service.calls(100, CallOutcome::Failed);
    assert_eq!((service.breaker.state(), service.call()), (BreakerState::Disabled, Passage::Free));
    service.breaker.close();
    service.end(0, CallOutcome::Failed);
    service.calls(9, CallOutcome::Failed);
    assert_eq!(
        service.breaker.state(),
        BreakerState::Closed,
        "what began while it was disabled is not counted"
    );
    service.calls(1, CallOutcome::Failed);
    assert!(matches!(service.breaker.state(), BreakerState::Open { .. }));
}
