//! Random histories of calls, admitted by the functions in Redis and by the reference in `tidemill-policy`: the same answers, the
//! same waits to the microsecond. Redis's clock cannot be set, so the reference is told the time that each reply carries.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tidemill_policy::breaker::{CallOutcome as Outcome, DICE, Ended};
use tidemill_policy::service::TierRules;
use tidemill_policy::tier::{Amounts, Answer as Said, Ask, TierState, Why, ask_all};
use tidemill_store::{
    Answer, Author, CallOutcome, CallReport, CallRequest, Correction, Exchange, Exchanged, Hindrance,
    LIBRARY_VERSION, Notice, Services, TierUse, library_text,
};

use crate::pool::Pool;

const AUTHOR: Author<'static> = Author { who: "ada", why: "the test", is_file: false };
/// The service's own tier, and one of a tenant.
const TIERS: [&str; 2] = ["api", "@tenant:acme"];
const UNITS: [&str; 2] = ["requests", "total_tokens"];
/// What the dice show all the time, in millionths.
const THROWN: u64 = 250_000;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many calls ask at once, each for so many tokens.
    Ask { calls: usize, tokens: u64, retry: bool },
    /// The n-th of the calls under way ends.
    End { index: usize, outcome: CallOutcome, used: u64, latency_us: u64 },
    /// As before, and the service asks for a pause of so many microseconds.
    Pause { index: usize, us: u64 },
    /// As before, and the service tells a limit.
    Notice { index: usize, unit: usize, limit: u64 },
    /// So many microseconds pass.
    Pass(u64),
    /// The time passes that the last answer told, if that is not long.
    Wait,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let outcome = prop::sample::select(vec![
        CallOutcome::Ok,
        CallOutcome::Ok,
        CallOutcome::Ok,
        CallOutcome::Failed,
        CallOutcome::Failed,
        CallOutcome::Throttled,
        CallOutcome::Ignored,
        CallOutcome::Unsent,
    ]);
    let op = prop_oneof![
        12 => (prop_oneof![3 => Just(1), 1 => 2..6_usize], prop_oneof![0..20_u64, 0..400_u64], prop::bool::weighted(0.3))
            .prop_map(|(calls, tokens, retry)| Op::Ask { calls, tokens, retry }),
        8 => (0..6_usize, outcome, 0..300_u64, 0..20_000_u64)
            .prop_map(|(index, outcome, used, latency_us)| Op::End { index, outcome, used, latency_us }),
        1 => (0..6_usize, 1..4_000_u64).prop_map(|(index, us)| Op::Pause { index, us }),
        1 => (0..6_usize, 0..2_usize, 1..60_u64).prop_map(|(index, unit, limit)| Op::Notice { index, unit, limit }),
        2 => (0..6_000_u64).prop_map(Op::Pass),
        6 => Just(Op::Wait),
    ];
    prop::collection::vec(op, 1..80)
}

fn limit_text() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec!['s', 's', 's', 'a', 'b', 'f']);
    let window = prop::sample::select(vec![3_000_u64, 10_000, 40_000, 200_000]);
    (0..2_usize, kinds, prop_oneof![1..40_u64, 40..2_000_u64], window, 1..40_u64, prop::bool::weighted(0.2))
        .prop_map(|(unit, kind, limit, window, burst, auto)| {
            let burst = if kind == 'b' || kind == 'f' { limit } else { burst.min(limit) };
            let slack = if kind == 's' { window / 20 } else { 0 };
            let (auto, initial) = if auto { (1, (limit / 2).max(1)) } else { (0, limit) };
            format!("d={},{kind},{limit},{window},{burst},{slack},{auto},{initial},{limit}", UNITS[unit])
        })
}

fn breaker_text() -> impl Strategy<Value = String> {
    let window = prop_oneof![
        (5_000..100_000_u64).prop_map(|us| format!("t,{us}")),
        (2..9_u64).prop_map(|n| format!("c,{n}"))
    ];
    let slow = prop::sample::select(vec!["0,1", "8000,0.5", "8000,1"]);
    (window, 1..5_u64, prop::sample::select(vec!["0.3", "0.5", "1"]), slow, 500..6_000_u64, 1..4_u64)
        .prop_map(|(window, min, ratio, slow, open, probes)| {
            format!("b={window},{min},{ratio},{slow},{open},{},{probes},9000", open * 3)
        })
}

/// The rules of the service, and of the tenant.
fn rules() -> impl Strategy<Value = [String; 2]> {
    let limits = prop::collection::vec(limit_text(), 0..4);
    let cap = prop::option::weighted(0.3, (1..6_u64).prop_map(|cap| format!("c={cap}")));
    let budget = prop::option::weighted(0.4, Just("r=0.1,0.5,2".to_owned()));
    let breaker = prop::option::weighted(0.5, breaker_text());
    let tenant = prop::collection::vec(limit_text(), 0..2);
    (limits, cap, budget, breaker, tenant).prop_map(|(limits, cap, budget, breaker, tenant)| {
        let service: Vec<String> = cap.into_iter().chain(limits).chain(breaker).chain(budget).collect();
        [service.join(" "), tenant.join(" ")]
    })
}

/// A call that was granted.
#[derive(Debug, Clone, Copy)]
struct Call {
    at_us: u64,
    tokens: u64,
    epoch: u64,
    probe: bool,
}

/// A worker that asks on both sides.
struct Twins {
    services: Services,
    reference: [TierState; 2],
    texts: [String; 2],
    seq: u64,
    now_us: u64,
    wait_us: u64,
    under_way: Vec<Call>,
}

fn amounts(tokens: u64) -> Amounts {
    Amounts::default().with("total_tokens", tokens)
}

fn real(amount: u64) -> f64 {
    f64::from(u32::try_from(amount).unwrap())
}

impl Twins {
    async fn of(pool: &Pool, texts: [String; 2]) -> Self {
        pool.cli(&["FLUSHALL"]).await;
        let services = pool.store.services();
        let templates: Vec<(String, String)> =
            TIERS.iter().zip(&texts).map(|(tier, text)| ((*tier).to_owned(), text.clone())).collect();
        services.define(AUTHOR, "api", "{}", &templates).await.unwrap();
        let reference = texts.each_ref().map(|text| TierState::new(&TierRules::parse(text).unwrap()));
        Self { services, reference, texts, seq: 0, now_us: 0, wait_us: 0, under_way: Vec::new() }
    }

    async fn exchange(&mut self, reports: Vec<CallReport<'_>>, requests: Vec<CallRequest<'_>>) -> Exchanged {
        let held = u32::try_from(self.under_way.len()).unwrap();
        let tiers = TIERS.map(|name| TierUse { name, template: name, held }).to_vec();
        self.seq += 1;
        let exchange = Exchange { tiers, reports, requests };
        let reply =
            self.services.admit("w1", self.seq, THROWN as f64 / DICE as f64, &exchange).await.unwrap();
        assert!(reply.accepted);
        self.now_us = reply.now_us;
        reply
    }

    async fn pass(&mut self, us: u64) {
        let until = self.now_us + us;
        while self.now_us < until {
            self.seq += 1;
            // without tiers it only tells the time
            let reply = self.services.admit("w1", self.seq, 0.0, &Exchange::default()).await.unwrap();
            self.now_us = reply.now_us;
        }
    }

    async fn ask(&mut self, calls: usize, tokens: u64, retry: bool) -> Result<(), TestCaseError> {
        let request = CallRequest {
            is_retry: retry,
            is_hedge: false,
            patience: Duration::from_secs(3_600),
            service: Some(0),
            id: "",
            // who has tickets is told to wait, not sent into a line
            tiers: vec![(0, true), (1, true)],
            amounts: vec![("requests", 1.0), ("total_tokens", real(tokens))],
        };
        let reply = self.exchange(Vec::new(), vec![request; calls]).await;
        let ask = Ask { amounts: amounts(tokens), retry, dice: THROWN };
        for (at, answer) in reply.answers.iter().enumerate() {
            let said = ask_all(&mut self.reference, self.now_us, &ask);
            agree(answer, &said)?;
            if let Said::Granted { probe, epoch } = said {
                self.under_way.push(Call { at_us: self.now_us, tokens, epoch, probe });
                continue;
            }
            if let Said::Wait { us, .. } = said {
                self.wait_us = us;
            }
            // those behind one that waits wait for it, too
            let overtakes = reply.answers[at..].iter().any(|answer| matches!(answer, Answer::Granted { .. }));
            prop_assert!(!overtakes, "{:?}", reply.answers);
            break;
        }
        Ok(())
    }

    async fn end(&mut self, index: usize, report: CallReport<'_>, used: u64) {
        if self.under_way.is_empty() {
            return;
        }
        let call = self.under_way.remove(index % self.under_way.len());
        let unsent = report.outcome == CallOutcome::Unsent;
        let used = if unsent { amounts(0).with("requests", 0) } else { amounts(call.tokens * used / 100) };
        let taken = amounts(call.tokens);
        let mut corrections = Vec::new();
        for tier in 0..TIERS.len() {
            for unit in UNITS {
                let delta = real(used.of(unit)) - real(taken.of(unit));
                if delta != 0.0 {
                    corrections.push(Correction { tier, unit, delta, granted_us: call.at_us });
                }
            }
        }
        let epoch = i64::try_from(call.epoch).unwrap();
        let report = CallReport { epoch, probe: call.probe, corrections, ..report };
        self.exchange(vec![report.clone()], Vec::new()).await;
        let now_us = self.now_us;
        for tier in &mut self.reference {
            tier.leave();
            tier.reconcile(now_us, call.at_us, (&taken, &used));
        }
        for notice in &report.notices {
            for dimension in self.reference[notice.tier].dimensions() {
                if dimension.rules().unit == notice.unit {
                    dimension.advertise(now_us, notice.limit as u64, 0);
                }
            }
        }
        let tier = &mut self.reference[0];
        if let Some((_, pause)) = report.pause {
            let long = u64::try_from(pause.as_micros()).unwrap();
            tier.pause(now_us + long + (long * THROWN).div_ceil(10 * DICE));
        }
        let outcome = match report.outcome {
            CallOutcome::Ok => Outcome::Ok,
            CallOutcome::Failed => Outcome::Failed,
            CallOutcome::Throttled => Outcome::Throttled,
            CallOutcome::Ignored | CallOutcome::Unsent => Outcome::Neutral,
        };
        let latency_us = u64::try_from(report.latency.as_micros()).unwrap();
        tier.record(now_us, &Ended { outcome, latency_us, epoch: call.epoch, probe: call.probe }, THROWN);
    }

    async fn go(&mut self, op: Op) -> Result<(), TestCaseError> {
        let plain = CallReport {
            service: Some(0),
            outcome: CallOutcome::Ok,
            latency: Duration::ZERO,
            epoch: 0,
            probe: false,
            pause: None,
            tiers: vec![0, 1],
            corrections: Vec::new(),
            notices: Vec::new(),
        };
        match op {
            Op::Ask { calls, tokens, retry } => self.ask(calls, tokens, retry).await?,
            Op::Pass(us) => self.pass(us).await,
            Op::Wait => {
                let wait = std::mem::take(&mut self.wait_us);
                self.pass(if wait < 20_000 { wait } else { 0 }).await;
            }
            Op::End { index, outcome, used, latency_us } => {
                let latency = Duration::from_micros(latency_us);
                self.end(index, CallReport { outcome, latency, ..plain }, used).await;
            }
            Op::Pause { index, us } => {
                let pause = Some((0, Duration::from_micros(us)));
                self.end(index, CallReport { outcome: CallOutcome::Throttled, pause, ..plain }, 100).await;
            }
            Op::Notice { index, unit, limit } => {
                let (tier, unit, limit) = (0, UNITS[unit], real(limit));
                let notice = Notice { tier, unit, limit, remaining: None, reset_in: None, window: None };
                self.end(index, CallReport { notices: vec![notice], ..plain }, 100).await;
            }
        }
        Ok(())
    }
}

fn word(why: &Why) -> String {
    match why {
        Why::RetryBudget => "retry_budget".to_owned(),
        Why::Pause => "pause".to_owned(),
        Why::Breaker => "breaker".to_owned(),
        Why::Concurrency => "concurrency".to_owned(),
        Why::Limit(unit) => format!("limit:{unit}"),
    }
}

/// Whether both say the same. What is drawn with dice or fades is a float in Redis: a microsecond or two.
fn agree(server: &Answer, reference: &Said) -> Result<(), TestCaseError> {
    let same = match (server, reference) {
        (Answer::Granted { epoch, probe }, Said::Granted { probe: expected, epoch: of }) => {
            probe == expected && *epoch == i64::try_from(*of).unwrap()
        }
        (
            Answer::Wait(Hindrance { wait, why, .. }) | Answer::Aside(Hindrance { wait, why, .. }),
            Said::Wait { us, why: for_what },
        ) => {
            let (wait, expected) = (u64::try_from(wait.as_micros()).unwrap(), word(for_what));
            let grain = u64::from(!expected.starts_with("limit:")) * 2;
            // when a place is free nobody knows: the one guesses from latencies, the other does not
            let guessed = why == "concurrency" || expected == "concurrency";
            guessed || (*why == expected && wait.abs_diff(*us) <= grain)
        }
        (Answer::Never(Hindrance { why, .. }), Said::TooLarge(unit)) => *why == format!("too_large:{unit}"),
        _ => false,
    };
    if same {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("the server says {server:?}, the reference {reference:?}")))
}

/// Makes random histories on both sides, under rules that are drawn; the first disagreement, if there is one.
fn disagreement(
    pool: &Pool,
    runtime: &tokio::runtime::Runtime,
    rules: impl Strategy<Value = [String; 2]>,
    config: Config,
) -> Option<String> {
    let outcome = TestRunner::new(config).run(&(rules, ops()), |(texts, ops)| {
        runtime.block_on(async {
            let mut twins = Twins::of(pool, texts).await;
            for (at, op) in ops.into_iter().enumerate() {
                let gone = twins.go(op).await;
                gone.map_err(|error| {
                    TestCaseError::fail(format!("{:?}: at {at}, {op:?}: {error}", twins.texts))
                })?;
            }
            Ok(())
        })
    });
    outcome.err().map(|error| error.to_string())
}

fn config(cases: u32, shrinking: u32) -> Config {
    Config { cases, max_shrink_iters: shrinking, failure_persistence: None, ..Config::default() }
}

#[test]
fn redis_admits_what_the_reference_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::start());
    let all = std::env::var_os("TIDEMILL_TEST_ALL").is_some_and(|value| value == "1");
    let cases = if all { 3_000 } else { 150 };
    assert_eq!(disagreement(&pool, &runtime, rules(), config(cases, 300)), None);
}

const REQUESTS: &str = "d=requests,s,20,10000,4,500,0,20,20";
const TOKENS: &str = "d=total_tokens,s,800,10000,40,500,0,800,800";
const FIXED: &str = "d=requests,f,3,3000,3,0,0,3,3";
const AUTO: &str = "d=requests,s,40,40000,2,2000,1,30,40";
const BREAKER: &str = "b=c,6,2,0.5,0,1,1500,6000,2,9000";
const BY_TIME: &str = "b=t,100000,2,0.5,0,1,1500,6000,2,9000";
const BUDGET: &str = "r=0.1,0.5,2";

/// What the comparison is worth: each of these faults in the library must be seen, under rules that it concerns.
const FAULTS: [(&str, &str, &str); 23] = [
    // a strict limit that gives away one too many, and one that is let go too fast
    (REQUESTS, "local over = s.s + amount - most", "local over = s.s + amount - most - 1"),
    (
        REQUESTS,
        "local period, units, burst = rule.window, most,",
        "local period, units, burst = rule.window, most + 1,",
    ),
    // a burst that is none, or is not paid for
    (REQUESTS, "math.floor((burst - math.min(amount, burst)", "math.floor((0"),
    (
        TOKENS,
        "math.ceil(amount * period / units)",
        "math.ceil(math.min(amount, rule.burst) * period / units)",
    ),
    // a limit that changes and forgets what is owed
    (REQUESTS, "s.t = now + math.ceil((s.t - now)", "s.t = now + math.ceil(0 * (s.t - now)"),
    // a sum that forgets too early, too late, or takes too much back
    (TOKENS, "return (s.c + from + k + 1) * rule.slot", "return (s.c + from + k) * rule.slot"),
    (TOKENS, "math.min(slot - rule.slots - 1, s.c) do", "math.min(slot - rule.slots, s.c) do"),
    (TOKENS, "local less = math.max(delta, -left)", "local less = delta * 2"),
    (TOKENS, "s.s = math.max(0, s.s + change)", "s.s = s.s"),
    (TOKENS, "s.t = math.max(s.t - math.floor(-delta * period / units), math.min(s.t, tier.now))", ""),
    // a window that never ends
    (FIXED, "local used = s.w == number and s.n or 0", "local used = s.n or 0"),
    // a limit that is looked for in the wrong way
    (AUTO, "math.floor(s.a * 7 / 10)", "math.floor(s.a * 8 / 10)"),
    // a breaker that opens too late, for too long, counts too much, or lets too many probes go
    (BREAKER, "failures / calls >= rule.ratio", "failures / calls > rule.ratio"),
    (BY_TIME, "failures / calls >= rule.ratio", "failures / calls > rule.ratio"),
    (BREAKER, "math.min(b.o - 1, 30)", "math.min(b.o, 30)"),
    (BREAKER, "if b.g < tier.rules.breaker.probes", "if b.g <= tier.rules.breaker.probes"),
    (BREAKER, "b.d > 0 and b.x / b.d >= rule.ratio", "b.d > 0 and b.x / b.d > 1"),
    (BREAKER, "if not b or b.e ~= epoch or", "if not b or"),
    (BREAKER, "b.g, b.h0 = b.g + 1, main.now", "b.g = b.g + 1"),
    // a place too many
    ("c=2", "(state.h or 0) >= tier.rules.cap", "(state.h or 0) > tier.rules.cap"),
    // retries for nothing
    (BUDGET, "r.t = r.t - 1", "r.t = r.t - 0.5"),
    (BUDGET, "0.5 ^ (passed / 5)", "0.5 ^ (passed / 4)"),
    // a pause without its share of the dice
    ("", "long * (1 + call.dice * 0.1)", "long"),
];

#[test]
fn the_reference_sees_a_fault_in_the_library() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::start());
    for (number, (rules, right, wrong)) in FAULTS.into_iter().enumerate() {
        let ours = format!("TIDEMILL_LIBRARY_VERSION = {LIBRARY_VERSION}");
        // a newer library is left alone
        let newer = format!("TIDEMILL_LIBRARY_VERSION = {}", 1_000 + number);
        let text = library_text();
        assert!(text.contains(right), "the library has no {right:?} any more");
        let broken = text.replace(right, wrong).replace(&ours, &newer);
        runtime.block_on(pool.cli(&["FUNCTION", "LOAD", "REPLACE", &broken]));
        let rules = Just([rules.to_owned(), String::new()]);
        let seen = disagreement(&pool, &runtime, rules, config(2_000, 0));
        assert!(seen.is_some(), "nobody noticed {wrong:?}");
    }
}
