//! What is used of limits and windows now: the stored state of a tier, read at a time.

use tidemill_policy::service::{BreakerRules, BudgetRules, Contract, LimitRules, Window};
use tidemill_store::{BreakerState, BudgetState, LimitState};

use super::view::{BreakerView, BudgetView, LimitView};

/// Buckets of a breaker's window by time.
const BUCKETS: f64 = 10.0;

const fn word(contract: Contract) -> &'static str {
    match contract {
        Contract::Strict => "strict",
        Contract::Average => "average",
        Contract::Bucket => "bucket",
        Contract::FixedWindow => "fixed_window",
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits are below 2^53")]
const fn real(amount: u64) -> f64 {
    amount as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times and counts; anything else saturates"
)]
pub(super) const fn whole(amount: f64) -> u64 {
    amount as u64
}

/// Milliseconds of microseconds.
pub(super) fn ms(us: f64) -> u64 {
    whole(us / 1_000.0)
}

/// A limit, and what is used of it.
pub(super) fn limit(rules: &LimitRules, state: Option<&LimitState>, now_us: f64) -> LimitView {
    let unknown = LimitState::default();
    let state = state.unwrap_or(&unknown);
    let most = state.limit.unwrap_or_else(|| real(if rules.auto { rules.initial } else { rules.limit }));
    let window = real(rules.window_us);
    let (measure, used, of) = if rules.contract == Contract::FixedWindow {
        let is_now = state.window == Some((now_us / window).floor());
        ("window", state.used.filter(|_| is_now).unwrap_or(0.0), most)
    } else if rules.contract == Contract::Strict {
        // the sum is brought up to date by calls: of a time without any it says nothing
        let is_past = state.arrival_us + window + real(rules.slack_us) < now_us;
        ("window", state.sum.filter(|_| !is_past).unwrap_or(0.0), most)
    } else {
        let (step, burst) = pace(rules, most);
        ("burst", ((state.arrival_us - now_us) / step).clamp(0.0, burst), burst)
    };
    LimitView {
        unit: rules.unit.clone(),
        contract: word(rules.contract).to_owned(),
        limit: most,
        configured: rules.limit,
        auto: rules.auto,
        told: state.advertised == Some(most) && state.advertised_until_us.is_some_and(|until| until > now_us),
        window_ms: rules.window_us / 1_000,
        measure,
        used,
        of,
    }
}

/// The time of one unit in microseconds, and the burst. The functions in Redis reckon the same.
fn pace(rules: &LimitRules, most: f64) -> (f64, f64) {
    let window = real(rules.window_us);
    (window / most, real(rules.burst).min(most))
}

/// Calls in a second that the limits on requests let go at most.
pub(super) fn request_rate(limits: &[LimitRules]) -> Option<f64> {
    let of_requests = limits.iter().filter(|limit| limit.unit == "requests");
    let rates = of_requests.map(|limit| {
        let most = real(if limit.auto { limit.initial } else { limit.limit }).max(1.0);
        most * 1e6 / real(limit.window_us + limit.slack_us).max(1.0)
    });
    rates.reduce(f64::min)
}

/// A breaker with its window.
pub(super) fn breaker(rules: &BreakerRules, state: Option<&BreakerState>, now_us: f64) -> BreakerView {
    let unknown = BreakerState::default();
    let state = state.unwrap_or(&unknown);
    let (calls, failures, slow) = match rules.window {
        Window::Time => by_time(rules, state, now_us),
        Window::Count => by_count(state.marks.as_deref().unwrap_or_default()),
    };
    let is_half_open = state.state == "half_open";
    BreakerView {
        state: if state.state.is_empty() { "closed".to_owned() } else { state.state.clone() },
        open_until_ms: state.open_until_us.filter(|_| state.state == "open").map(ms),
        openings: whole(state.openings),
        calls,
        failures,
        slow,
        min_calls: rules.min_calls,
        failure_ratio: rules.failure_ratio,
        probes: is_half_open.then(|| [whole(state.probes_granted.unwrap_or(0.0)), rules.probes]),
    }
}

fn by_time(rules: &BreakerRules, state: &BreakerState, now_us: f64) -> (u64, u64, u64) {
    let Some(newest) = state.bucket else { return (0, 0, 0) };
    let now = (now_us / (real(rules.window_us) / BUCKETS).ceil()).floor();
    let mut sums = (0.0, 0.0, 0.0);
    for back in 0..10_u8 {
        let bucket = newest - f64::from(back);
        if bucket <= now - BUCKETS || bucket < 0.0 {
            break;
        }
        let at = usize::try_from(whole(bucket % BUCKETS)).unwrap_or(0);
        let of = |list: &[f64]| list.get(at).copied().unwrap_or(0.0);
        sums = (sums.0 + of(&state.calls), sums.1 + of(&state.failures), sums.2 + of(&state.slow));
    }
    (whole(sums.0), whole(sums.1), whole(sums.2))
}

fn by_count(marks: &str) -> (u64, u64, u64) {
    let count = |wanted: &[char]| marks.chars().filter(|mark| wanted.contains(mark)).count() as u64;
    (marks.len() as u64, count(&['f', 'b']), count(&['l', 'b']))
}

/// A bound on retries; one that was never asked is full.
pub(super) fn budget(rules: &BudgetRules, state: Option<&BudgetState>) -> BudgetView {
    let tokens = state.map_or(rules.burst, |state| state.tokens.min(rules.burst));
    BudgetView { tokens, burst: rules.burst, ratio: rules.ratio }
}

#[cfg(test)]
mod tests {
    use super::{breaker, budget, limit, request_rate};
    use tidemill_policy::service::TierRules;
    use tidemill_store::{BreakerState, LimitState};

    const TEXT: &str = "c=5 d=requests,s,600,60000000,2,240000,0,600,600 d=total_tokens,s,1000,60000000,100,240000,0,1000,1000 \
        d=requests,f,100,1000000,100,0,0,100,100 d=calls,a,600,60000000,60,0,0,600,600 b=t,10000000,20,0.5,0,1,5000000,60000000,3,30000000 r=0.1,0.1,10";

    #[test]
    fn use_is_told_of_the_window_where_one_is_kept_and_of_the_burst_elsewhere() {
        let rules = TierRules::parse(TEXT).unwrap();
        let now = 1_000_500_000.0;
        let fresh = limit(&rules.limits[0], None, now);
        assert_eq!((fresh.measure, fresh.used, fresh.of, fresh.limit), ("window", 0.0, 600.0, 600.0));
        let state = LimitState { arrival_us: now, sum: Some(250.0), ..LimitState::default() };
        let tokens = limit(&rules.limits[1], Some(&state), now);
        assert_eq!((tokens.measure, tokens.used, tokens.of), ("window", 250.0, 1_000.0));
        let later = now + 60_240_001.0;
        assert_eq!(limit(&rules.limits[1], Some(&state), later).used, 0.0, "nobody has called since");
        let average = LimitState { arrival_us: now + 100_000.0, limit: Some(600.0), ..LimitState::default() };
        let average = limit(&rules.limits[3], Some(&average), now);
        assert_eq!((average.measure, average.of), ("burst", 60.0));
        assert!((average.used - 1.0).abs() < 1e-6);
        let state = LimitState { window: Some(1_000.0), used: Some(7.0), ..LimitState::default() };
        assert_eq!(limit(&rules.limits[2], Some(&state), now).used, 7.0);
        assert_eq!(limit(&rules.limits[2], Some(&state), now + 1e6).used, 0.0, "another window has begun");
        assert!((request_rate(&rules.limits).unwrap() - 600e6 / 60_240_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_limit_that_the_service_told_is_marked_while_it_counts() {
        let rules = TierRules::parse(TEXT).unwrap();
        let state = LimitState {
            limit: Some(300.0),
            advertised: Some(300.0),
            advertised_until_us: Some(10.0),
            ..LimitState::default()
        };
        assert!(limit(&rules.limits[0], Some(&state), 9.0).told);
        assert!(!limit(&rules.limits[0], Some(&state), 11.0).told);
    }

    #[test]
    fn a_breaker_s_window_forgets_what_is_older_than_it() {
        let rules = TierRules::parse(TEXT).unwrap();
        let state = BreakerState {
            state: "closed".to_owned(),
            bucket: Some(12.0),
            calls: vec![0.0, 1.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0],
            failures: vec![0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0],
            slow: vec![0.0; 10],
            ..BreakerState::default()
        };
        let window = |now| {
            let view = breaker(rules.breaker.as_ref().unwrap(), Some(&state), now);
            (view.calls, view.failures)
        };
        assert_eq!(window(12_500_000.0), (13, 6));
        assert_eq!(window(20_500_000.0), (9, 2), "bucket 9 is out of it");
        assert_eq!(window(40_000_000.0), (0, 0));
        let counted = TierRules::parse("b=c,100,20,0.5,0,1,5000000,60000000,3,30000000").unwrap();
        let state = BreakerState { marks: Some("oofbl".to_owned()), ..BreakerState::default() };
        let view = breaker(counted.breaker.as_ref().unwrap(), Some(&state), 0.0);
        assert_eq!((view.calls, view.failures, view.slow), (5, 2, 2));
        assert_eq!(budget(rules.retry_budget.as_ref().unwrap(), None).tokens, 10.0);
    }
}
