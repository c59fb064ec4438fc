//! What the limits promise, over random histories, against an exact log of everything that was granted.

use proptest::prelude::*;

use super::{Dimension, SECOND, Verdict};
use crate::service::{Contract, LimitRules};

/// An exact sliding log: time and amount.
type Log = Vec<(u64, u64)>;

const START: u64 = 1_763_750_000_000_000;

/// How long the random histories are looked for; longer with `TIDEMILL_TEST_ALL=1`.
pub(crate) fn config() -> ProptestConfig {
    let all = std::env::var_os("TIDEMILL_TEST_ALL").is_some_and(|value| value == "1");
    ProptestConfig {
        cases: if all { 2_000 } else { 100 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn rules(
    unit: &str,
    contract: Contract,
    (limit, burst): (u64, u64),
    (window_us, slack_us): (u64, u64),
) -> LimitRules {
    LimitRules {
        unit: unit.to_owned(),
        contract,
        limit,
        window_us,
        burst,
        slack_us,
        auto: false,
        initial: limit,
        max: limit,
    }
}

/// The most in any window `[t, t + window)`.
fn most_in_a_window(log: &Log, window_us: u64) -> u64 {
    let mut log = log.clone();
    log.sort_unstable();
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, amount) in &log {
        sum += amount;
        while at - log[first].0 >= window_us {
            sum -= log[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// What was granted within the last `period_us`.
fn in_the_last(log: &Log, now_us: u64, period_us: u64) -> u64 {
    log.iter().filter(|(at, _)| now_us - at < period_us).map(|(_, amount)| amount).sum()
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many thousandths of the window pass.
    Pass(u64),
    /// The time between two units passes, give or take a little.
    Step(i64),
    /// The time passes that the last answer told.
    Wait,
    /// A call asks for so many thousandths of the limit, at least 1.
    Ask(u64),
    /// The n-th of the calls under way ends, having used so many hundredths of what it took.
    End(usize, u64),
    /// The service tells a limit of so many hundredths of the configured.
    Advertise(u64),
    /// The service throttles.
    Throttle,
}

fn ops(more_than_taken: bool, changes: u32) -> impl Strategy<Value = Vec<Op>> {
    let share = if more_than_taken { 0..300_u64 } else { 0..101_u64 };
    let op = prop_oneof![
        1 => (0..1500_u64).prop_map(Op::Pass),
        3 => (-2..3_i64).prop_map(Op::Step),
        8 => Just(Op::Wait),
        6 => (0..20_u64).prop_map(Op::Ask),
        4 => Just(Op::Ask(0)),
        1 => (0..1001_u64).prop_map(Op::Ask),
        5 => (0..8_usize, share).prop_map(|(index, share)| Op::End(index, share)),
        changes => (1..150_u64).prop_map(Op::Advertise),
        changes => Just(Op::Throttle),
    ];
    prop::collection::vec(op, 1..300)
}

/// A call that was granted.
#[derive(Debug, Clone, Copy)]
struct Call {
    at_us: u64,
    taken: u64,
    used: u64,
    ended: bool,
}

/// A limit and the log of what it granted.
struct History {
    dimension: Dimension,
    now_us: u64,
    wait_us: u64,
    calls: Vec<Call>,
}

impl History {
    fn of(rules: LimitRules) -> Self {
        Self { dimension: Dimension::new(rules), now_us: START, wait_us: 0, calls: Vec::new() }
    }

    /// Whether the op granted a call.
    fn go(&mut self, op: Op) -> bool {
        let rules = self.dimension.rules().clone();
        match op {
            Op::Pass(share) => self.now_us += rules.window_us * share / 1000,
            Op::Step(more) => {
                let step = self.dimension.pace(self.now_us).step_us();
                self.now_us += step.saturating_add_signed(more);
            }
            Op::Wait => self.now_us += std::mem::take(&mut self.wait_us),
            Op::Ask(share) => return self.ask((rules.limit * share / 1000).max(1)),
            Op::End(index, share) => self.end(index, share),
            Op::Advertise(share) => {
                let told = (rules.limit * share / 100).max(1);
                self.dimension.advertise(self.now_us, told, 0);
            }
            Op::Throttle => self.dimension.throttled(self.now_us),
        }
        false
    }

    fn ask(&mut self, amount: u64) -> bool {
        let amount = if self.dimension.rules().unit == "requests" { 1 } else { amount };
        match self.dimension.ask(self.now_us, amount) {
            Verdict::Fits => {
                self.dimension.take(self.now_us, amount);
                self.calls.push(Call { at_us: self.now_us, taken: amount, used: amount, ended: false });
                return true;
            }
            Verdict::Wait(us) => self.wait_us = us,
            Verdict::TooLarge => {}
        }
        false
    }

    fn end(&mut self, index: usize, share: u64) {
        let now_us = self.now_us;
        let Some(call) = self.calls.iter_mut().rev().filter(|call| !call.ended).nth(index) else { return };
        call.used = if self.dimension.rules().unit == "requests" {
            u64::from(share > 50)
        } else {
            call.taken * share / 100
        };
        call.ended = true;
        self.dimension.reconcile(now_us, call.at_us, (call.taken, call.used));
    }

    /// A caller that always has another call waiting.
    fn saturate(&mut self, for_us: u64, mut amount: impl FnMut() -> u64) {
        let end = self.now_us + for_us;
        let mut next = amount();
        while self.now_us < end {
            if self.ask(next) {
                next = amount();
            } else {
                self.now_us += self.wait_us.max(1);
            }
        }
    }

    fn used(&self) -> Log {
        self.calls.iter().map(|call| (call.at_us, call.used)).collect()
    }

    fn total(&self) -> u64 {
        self.calls.iter().map(|call| call.used).sum()
    }
}

fn window() -> impl Strategy<Value = (u64, u64)> {
    let window = prop_oneof![1_000..10_000_u64, 100_000..5_000_000_u64, Just(SECOND), Just(60 * SECOND)];
    window.prop_flat_map(|window| (Just(window), prop_oneof![Just(window / 250), 0..=window / 10]))
}

fn limits(most: u64) -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![1..4_u64, 1..40_u64, 40..=most].prop_flat_map(|limit| {
        let burst = prop_oneof![Just(Contract::Strict.default_burst(limit)), 1..=limit];
        (Just(limit), burst)
    })
}

fn contracts() -> impl Strategy<Value = Contract> {
    prop::sample::select(vec![Contract::Strict, Contract::Average, Contract::Bucket, Contract::FixedWindow])
}

fn units() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["requests", "total_tokens"])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_window_holds_more_than_a_strict_limit(
        unit in units(), amount in limits(5_000), window in window(), ops in ops(false, 0), late: u64,
    ) {
        let mut history = History::of(rules(unit, Contract::Strict, amount, window));
        for op in ops {
            history.go(op);
        }
        // the way to the service takes between nothing and the slack longer
        let mut random = late | 1;
        let mut arrivals = history.used();
        for (at, _) in &mut arrivals {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *at += random % (window.1 + 1);
        }
        let most = most_in_a_window(&arrivals, window.0);
        prop_assert!(most <= amount.0, "{most} of {}", amount.0);
    }

    #[test]
    fn a_strict_limit_that_changes_is_kept_by_all_that_comes_after(
        unit in units(), amount in limits(2_000), window in window(), ops in ops(false, 4), auto: bool,
    ) {
        let given = rules(unit, Contract::Strict, amount, window);
        let mut history = History::of(LimitRules { auto, initial: (amount.0 / 2).max(1), ..given });
        for op in ops {
            if history.go(op) {
                let most = history.dimension.limit(history.now_us);
                let held = in_the_last(&history.used(), history.now_us, window.0 + window.1);
                prop_assert!(held <= most, "{held} of {most}");
            }
        }
    }

    #[test]
    fn a_strict_limit_is_passed_by_no_more_than_was_underestimated(
        amount in limits(5_000), window in window(), ops in ops(true, 0),
    ) {
        let mut history = History::of(rules("total_tokens", Contract::Strict, amount, window));
        for op in ops {
            history.go(op);
        }
        let taken: Log = history.calls.iter().map(|call| (call.at_us, call.taken.min(call.used))).collect();
        let most = most_in_a_window(&taken, window.0);
        prop_assert!(most <= amount.0, "{most} of {}", amount.0);
    }

    #[test]
    fn what_was_underestimated_is_waited_for(
        limit in 100..1_000_u64, burst in 1..100_u64, window in window(), taken in 1..50_u64, times in 1..6_u64,
    ) {
        let amount = (limit, burst);
        for contract in [Contract::Strict, Contract::Average, Contract::Bucket] {
            let mut history = History::of(rules("total_tokens", contract, amount, window));
            let end = START + 5 * window.0;
            while history.now_us < end {
                if history.ask(taken) {
                    history.end(0, 100 * times);
                } else {
                    history.now_us += history.wait_us;
                }
            }
            // each window may be passed by what one call did not tell
            let allowed = 6 * (limit + taken * times) + burst;
            prop_assert!(history.total() <= allowed, "{contract:?}: {} of {allowed}", history.total());
        }
    }

    #[test]
    fn who_always_asks_gets_nearly_all_of_a_strict_limit(amount in limits(1_000), window in window()) {
        let (limit, burst) = amount;
        let (period, long) = (window.0 + window.1, 3 * window.0);
        let mut history = History::of(rules("requests", Contract::Strict, amount, window));
        history.saturate(long, || 1);
        let burst = burst.min((limit / 2).max(1));
        // a step of whole microseconds may be almost one longer
        let step = period.div_ceil(limit - burst + 1);
        prop_assert!(history.total() >= long / step, "{} of {}", history.total(), long / step);
        if step > limit {
            prop_assert!(u128::from(history.total()) * u128::from(period) >= u128::from(limit - burst) * u128::from(long));
        }
    }

    #[test]
    fn a_wait_is_as_long_as_needed_and_no_longer(
        unit in units(), contract in contracts(), amount in limits(5_000), window in window(), ops in ops(true, 0),
    ) {
        let mut history = History::of(rules(unit, contract, amount, window));
        for op in ops {
            history.go(op);
            let Op::Ask(_) = op else { continue };
            let asked = if unit == "requests" { 1 } else { (amount.0 / 3).max(1) };
            let Verdict::Wait(us) = history.dimension.ask(history.now_us, asked) else { continue };
            prop_assert!(us > 0);
            prop_assert_eq!(history.dimension.clone().ask(history.now_us + us, asked), Verdict::Fits);
            let early = history.dimension.clone().ask(history.now_us + us - 1, asked);
            prop_assert!(matches!(early, Verdict::Wait(_)), "{us} us are too long: {early:?} before");
        }
    }

    #[test]
    fn an_average_is_kept_but_for_its_burst(
        unit in units(), bucket: bool, amount in limits(5_000), window in window(), ops in ops(false, 0),
    ) {
        let contract = if bucket { Contract::Bucket } else { Contract::Average };
        let mut history = History::of(rules(unit, contract, amount, window));
        let fits = |total: u64, for_us: u64, at_once: u64| {
            u128::from(total) * u128::from(window.0)
                <= u128::from(amount.0) * u128::from(for_us) + u128::from(at_once) * u128::from(window.0)
        };
        for op in ops {
            history.go(op);
        }
        let largest = history.calls.iter().map(|call| call.taken).max().unwrap_or(0);
        let at_once = amount.1.max(largest);
        prop_assert!(fits(history.total(), history.now_us - START, at_once));
        // between any two calls, by what was taken: what is given back was paid for before
        if history.calls.iter().all(|call| call.used == call.taken) {
            for (index, first) in history.calls.iter().enumerate() {
                let mut total = 0;
                for last in &history.calls[index..] {
                    total += last.taken;
                    prop_assert!(fits(total, last.at_us - first.at_us, at_once));
                }
            }
        }
    }

    #[test]
    fn a_fixed_window_holds_its_limit(
        unit in units(), amount in limits(5_000), window in window(), ops in ops(false, 0),
    ) {
        let mut history = History::of(rules(unit, Contract::FixedWindow, amount, window));
        for op in ops {
            history.go(op);
        }
        let mut sums = std::collections::BTreeMap::<u64, u64>::new();
        for (at, used) in history.used() {
            *sums.entry(at / window.0).or_default() += used;
        }
        prop_assert!(sums.values().all(|sum| *sum <= amount.0), "{sums:?} of {}", amount.0);
    }
}

#[test]
fn the_defaults_give_99_percent() {
    for (limit, window_us) in [(600, 60 * SECOND), (10_000, 60 * SECOND), (5_000, SECOND), (1, SECOND)] {
        let slack_us = (window_us / 250).min(250_000);
        let burst = Contract::Strict.default_burst(limit);
        let mut history =
            History::of(rules("requests", Contract::Strict, (limit, burst), (window_us, slack_us)));
        history.saturate(30 * window_us, || 1);
        let share = history.total() * 10_000 / (30 * limit);
        assert!(share >= 9_900, "{limit} per {window_us} us: {share} of 10,000");
    }
}

#[test]
fn calls_of_differing_size_use_most_of_a_strict_limit() {
    let limit = 90_000;
    for (smallest, largest, least) in [(100, 300, 9_900), (500, 2_000, 9_750)] {
        let burst = Contract::Strict.default_burst(limit);
        let mut history =
            History::of(rules("total_tokens", Contract::Strict, (limit, burst), (60 * SECOND, 240_000)));
        let mut size = smallest;
        history.saturate(30 * 60 * SECOND, || {
            size = smallest + (size * 7_919 + 13) % (largest - smallest);
            size
        });
        let share = history.total() * 10_000 / (30 * limit);
        assert!(share >= least, "calls of {smallest} to {largest}: {share} of 10,000");
    }
}

#[test]
fn a_call_larger_than_the_burst_is_paid_in_full() {
    let given = rules("total_tokens", Contract::Average, (90_000, 9_000), (60 * SECOND, 0));
    let mut history = History::of(given);
    history.saturate(60 * 60 * SECOND, || 20_000);
    assert!(history.total() <= 60 * 90_000 + 20_000, "{}", history.total());
    assert!(history.total() >= 60 * 90_000 - 20_000, "{}", history.total());
}

#[test]
fn a_burst_goes_at_once() {
    let mut history = History::of(rules("requests", Contract::Strict, (10_000, 25), (60 * SECOND, 240_000)));
    assert_eq!((0..30).filter(|_| history.ask(1)).count(), 25);
}

#[test]
fn a_raised_limit_is_used_at_once() {
    for unit in ["requests", "total_tokens"] {
        let given = rules(unit, Contract::Strict, (600, 2), (60 * SECOND, 240_000));
        let mut history = History::of(given);
        history.dimension.advertise(START, 1, 0);
        assert!(history.ask(1) && !history.ask(1));
        history.now_us += SECOND;
        history.dimension.advertise(history.now_us, 600, 0);
        history.saturate(SECOND / 2, || 1);
        assert!(history.total() > 5, "{unit}: {} since the raise", history.total());
    }
}

#[test]
fn more_than_the_limit_never_fits() {
    let mut dimension =
        Dimension::new(rules("total_tokens", Contract::Strict, (1_000, 10), (60 * SECOND, 0)));
    assert_eq!(dimension.ask(START, 1_001), Verdict::TooLarge);
    assert_eq!(dimension.ask(START, 1_000), Verdict::Fits);
    // what was told is not for good
    dimension.advertise(START, 500, 0);
    assert_eq!(dimension.ask(START, 1_000), Verdict::Wait(SECOND));
    assert_eq!(dimension.ask(START + 61 * SECOND, 1_000), Verdict::Fits);
}
