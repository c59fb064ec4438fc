//! Services when something is odd: probes that died, definitions that went away, keys that hold something else, clocks that jumped.

use std::time::Duration;

use tidemill_store::{
    Answer, Author, CallOutcome, CallReport, CallRequest, Control, Correction, Exchange, Exchanged, Forecast,
    Outlook, Services, TierUse,
};
use tidemill_testkit::wait_until;

use crate::pool::{PATIENCE, Pool};

const AUTHOR: Author<'static> = Author { who: "ada", why: "the test", is_file: false };
const HORIZON: Duration = Duration::from_millis(50);

async fn define(services: &Services, name: &str, rules: &str) {
    services.define(AUTHOR, name, rules, &[(name.to_owned(), rules.to_owned())]).await.unwrap();
}

fn call<'a>(id: &'a str, amounts: &[(&'a str, f64)], has_ticket: bool) -> CallRequest<'a> {
    CallRequest {
        is_retry: false,
        is_hedge: false,
        patience: Duration::ZERO,
        service: Some(0),
        id,
        tiers: vec![(0, has_ticket)],
        amounts: amounts.to_vec(),
    }
}

fn end(outcome: CallOutcome) -> CallReport<'static> {
    CallReport {
        service: Some(0),
        outcome,
        latency: Duration::from_millis(1),
        epoch: 0,
        probe: false,
        pause: None,
        tiers: vec![0],
        corrections: Vec::new(),
        notices: Vec::new(),
    }
}

/// A worker that holds so many places of one tier.
struct Asker<'a> {
    services: Services,
    who: &'a str,
    seq: u64,
}

impl<'a> Asker<'a> {
    fn new(pool: &Pool, who: &'a str) -> Self {
        Self { services: pool.store.services(), who, seq: 0 }
    }

    async fn tell(
        &mut self,
        (tier, held): (&str, u32),
        reports: Vec<CallReport<'_>>,
        requests: Vec<CallRequest<'_>>,
    ) -> Exchanged {
        self.seq += 1;
        let tiers = vec![TierUse { name: tier, template: tier, held }];
        self.services.admit(self.who, self.seq, 0.0, &Exchange { tiers, reports, requests }).await.unwrap()
    }

    async fn ask(&mut self, tier: &str, held: u32, request: CallRequest<'_>) -> Answer {
        self.tell((tier, held), Vec::new(), vec![request]).await.answers.remove(0)
    }

    async fn outlook(&self, tier: &str, waiting: u64) -> Outlook {
        let asked = [Forecast { tier, waiting, unused: 0 }];
        self.services.forecast(HORIZON, true, &asked).await.unwrap().remove(0)
    }
}

fn is_granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Granted { .. })
}

/// Probes go to whoever asks first. When their workers die with them while others wait in line, nobody without a ticket may ask,
/// so that the one who finds out has to be called up.
#[tokio::test]
async fn a_breaker_whose_probes_died_is_found_out_although_all_wait_in_line() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "b=t,10000000,2,0.5,0,1,20000,20000,1,300000").await;
    let failed = || end(CallOutcome::Failed);
    asker.tell(("api", 0), vec![failed(), failed()], Vec::new()).await;
    let mut dead = Asker::new(&pool, "w2");
    wait_until(PATIENCE, "a probe", async || {
        matches!(dead.ask("api", 0, call("a", &[], true)).await, Answer::Granted { probe: true, .. })
    })
    .await
    .unwrap();
    // others come and form a line
    let mut call_up = 0;
    wait_until(PATIENCE, "somebody to be called up", async || {
        let refused = asker.ask("api", 0, call("b", &[], false)).await;
        assert!(matches!(refused, Answer::Line(_)), "{refused:?}");
        call_up = asker.outlook("api", 10).await.allowance;
        call_up > 0
    })
    .await
    .unwrap();
    assert_eq!(call_up, 1, "one is enough to find out");
    asker.ask("api", 0, call("c", &[], true)).await;
    let state = asker.services.states(&["api"]).await.unwrap().remove(0).unwrap();
    assert_eq!(state.breaker.unwrap().state, "open", "the probe counts as failed");
}

#[tokio::test]
async fn a_line_whose_definition_was_removed_is_let_go_though_it_was_paused() {
    let pool = Pool::start().await;
    let asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "c=1").await;
    asker.services.control(AUTHOR, "api", Control::Pause(None)).await.unwrap();
    assert_eq!(asker.outlook("api", 7).await.allowance, 0);
    asker.services.define(AUTHOR, "api", "", &[]).await.unwrap();
    assert_eq!(asker.outlook("api", 7).await.allowance, 7, "nobody would ever resume it");
}

#[tokio::test]
async fn a_key_that_holds_something_else_stops_neither_its_tier_nor_others() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "c=5 d=requests,s,100,1000000,10,20000,0,100,100").await;
    let services = asker.services.clone();
    for key in [services.tier("api"), services.held("api"), services.sums("api")] {
        pool.cli(&["DEL", &key]).await;
        pool.cli(&["RPUSH", &key, "not ours"]).await;
    }
    assert_eq!(asker.outlook("api", 3).await.allowance, 3);
    for key in [services.tier("api"), services.held("api"), services.sums("api")] {
        pool.cli(&["DEL", &key]).await;
        pool.cli(&["RPUSH", &key, "not ours"]).await;
    }
    assert!(is_granted(&asker.ask("api", 0, call("a", &[("requests", 1.0)], true)).await));
    // what is no map, and a map with limits that are none: {"l":[1],"n":{}}
    for odd in [r"\1", r"\130\161l\145\1\161n\128"] {
        let script = format!("return redis.call('SET', KEYS[1], \"{odd}\")");
        pool.cli(&["EVAL", &script, "1", &services.tier("api")]).await;
        assert!(is_granted(&asker.ask("api", 1, call("b", &[("requests", 1.0)], true)).await));
    }
}

/// Redis's clock was an hour ahead: what a dead worker held then must not count for an hour.
#[tokio::test]
async fn places_held_until_a_time_that_no_clock_gives_come_back() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "c=2").await;
    let now_us = asker.tell(("api", 0), Vec::new(), Vec::new()).await.now_us;
    let held = asker.services.held("api");
    let later = now_us + 3_600_000_000;
    pool.cli(&["HSET", &held, "dead", &format!("1 {later} 7"), "suspect", &format!("1 -{later} 0")]).await;
    wait_until(PATIENCE, "both places to come back", async || {
        let first = asker.ask("api", 0, call("a", &[], true)).await;
        asker.tell(("api", 0), Vec::new(), Vec::new()).await;
        is_granted(&first) && pool.cli(&["HLEN", &held]).await == "0"
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_pause_for_longer_than_a_day_is_kept_though_nobody_asks() {
    let pool = Pool::start().await;
    let asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "c=1").await;
    let three_days = 3 * 24 * 3_600_000;
    let until = pool.home().now_ms().await.unwrap() + three_days;
    asker.services.control(AUTHOR, "api", Control::Pause(Some(until))).await.unwrap();
    let kept: u64 = pool.cli(&["PTTL", &asker.services.tier("api")]).await.parse().unwrap();
    assert!(kept >= three_days, "{kept}");
    // a time that is no time
    asker.services.control(AUTHOR, "api", Control::Pause(Some(u64::MAX))).await.unwrap();
    assert_eq!(asker.outlook("api", 1).await.why, "pause");
}

/// What needs much at once keeps others back while it comes again and again; should it not come any more, they go on soon.
#[tokio::test]
async fn one_that_needs_much_and_is_gone_holds_the_others_up_for_seconds_at_most() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "d=tokens,a,1000,3600000000,10,0,0,1000,1000").await;
    assert!(is_granted(&asker.ask("api", 0, call("a", &[("tokens", 500.0)], true)).await));
    let refused = asker.ask("api", 1, call("large", &[("tokens", 400.0)], true)).await;
    let Answer::Line(hindrance) = refused else { panic!("{refused:?}") };
    assert!(hindrance.wait > Duration::from_secs(600), "{hindrance:?}");
    // there is room for this one
    asker.services.control(AUTHOR, "other", Control::Reset).await.unwrap();
    let behind = asker.ask("api", 1, call("none", &[], true)).await;
    let (Answer::Line(hindrance) | Answer::Wait(hindrance)) = behind else { panic!("{behind:?}") };
    assert!(hindrance.wait <= Duration::from_secs(15), "{hindrance:?}");
}

/// A service's answer may say anything of what it used.
#[tokio::test]
async fn a_use_beyond_belief_does_not_stop_a_service_for_good() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    define(&asker.services, "api", "d=tokens,s,1000,1000000,20,20000,0,1000,1000").await;
    let told = asker.tell(("api", 0), Vec::new(), vec![call("a", &[("tokens", 10.0)], true)]).await;
    let correction = Correction { tier: 0, unit: "tokens", delta: 1e15, granted_us: told.now_us };
    let report = CallReport { corrections: vec![correction], ..end(CallOutcome::Ok) };
    let after = asker.tell(("api", 0), vec![report], vec![call("b", &[("tokens", 10.0)], true)]).await;
    let Answer::Line(hindrance) = &after.answers[0] else { panic!("{after:?}") };
    assert!(hindrance.wait <= Duration::from_secs(11), "ten windows at most: {hindrance:?}");
}

#[tokio::test]
async fn what_is_learned_is_bounded_and_fades() {
    let pool = Pool::start().await;
    let services = pool.store.services();
    for round in 0..10 {
        let amounts: Vec<(String, f64)> =
            (0..1_000).map(|at| (format!("api chat model-{round}-{at} tokens"), 5.0)).collect();
        services.learn(&amounts).await.unwrap();
    }
    let known = services.learned().await.unwrap().len();
    assert!((1_000..=5_000).contains(&known), "{known}");
    services.learn(&[("api chat model-0-0 tokens".to_owned(), 6.0)]).await.unwrap();
    assert_eq!(
        services.learned().await.unwrap()["api chat model-0-0 tokens"],
        6.0,
        "what is known is followed"
    );
    let left: i64 = pool.cli(&["PTTL", &services.learned_key()]).await.parse().unwrap();
    assert!(left > 0, "{left}");
}

/// Whoever adds a limit, or takes one away, does not thereby allow the others to be used once more.
#[tokio::test]
async fn a_limit_keeps_what_was_used_of_it_when_others_come_and_go() {
    let pool = Pool::start().await;
    let mut asker = Asker::new(&pool, "w1");
    let calls = "d=requests,s,3,60000000,3,20000,0,3,3";
    let (tokens, cost) =
        ("d=tokens,s,100,60000000,100,20000,0,100,100", "d=cost,a,1000,60000000,1000,0,0,1000,1000");
    define(&asker.services, "api", calls).await;
    let amounts = [("requests", 1.0), ("tokens", 40.0), ("cost", 1.0)];
    for _ in 0..3 {
        assert!(is_granted(&asker.ask("api", 0, call("a", &amounts, true)).await));
    }
    let is_held_by = |answer: Answer, unit: &str| {
        let (Answer::Line(hindrance) | Answer::Wait(hindrance)) = answer else { panic!("{answer:?}") };
        assert_eq!(hindrance.why, format!("limit:{unit}"));
    };
    is_held_by(asker.ask("api", 0, call("b", &amounts, true)).await, "requests");
    for rules in [format!("{tokens} {calls}"), format!("{cost} {tokens} {calls}"), calls.to_owned()] {
        define(&asker.services, "api", &rules).await;
        is_held_by(asker.ask("api", 0, call("c", &amounts, true)).await, "requests");
    }
    asker.services.control(AUTHOR, "api", Control::Pause(None)).await.unwrap();
    asker.services.control(AUTHOR, "api", Control::Resume).await.unwrap();
    is_held_by(asker.ask("api", 0, call("c", &amounts, true)).await, "requests");
    // the slots of one are not taken for those of another
    define(&asker.services, "api", tokens).await;
    for _ in 0..2 {
        let answer = asker.ask("api", 0, call("d", &amounts, true)).await;
        assert!(is_granted(&answer), "{answer:?}");
    }
    is_held_by(asker.ask("api", 0, call("d", &amounts, true)).await, "tokens");
    define(&asker.services, "api", &format!("{calls} {tokens}")).await;
    is_held_by(asker.ask("api", 0, call("e", &[("tokens", 40.0)], true)).await, "tokens");
    assert!(
        is_granted(&asker.ask("api", 0, call("e", &[("requests", 1.0)], true)).await),
        "it was taken away"
    );
}
