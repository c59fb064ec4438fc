//! What admission costs: round trips of the workers, and processor time of Redis beside the cheapest script there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tidemill_policy::service::Definition;
use tidemill_store::{Answer, CallOutcome, CallReport, CallRequest, Exchange, Services, TierUse};
use tidemill_testkit::referee::Rules;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::load::VENDOR;
use super::pool::{AUTHOR, Crew, Pool};
use super::table::{Line, percent};
use crate::bench::{Bench, Mode};
use crate::queue::{Info, ask, command};

const WITHIN: Duration = Duration::from_secs(60);
/// Exchanges under way at once: enough that Redis never waits.
const UNDER_WAY: usize = 16;
/// A limit that is never reached: 500,000 a second.
const AMPLE: u64 = 30_000_000;
const WINDOW_MS: u64 = 60_000;

/// One key, one fixed window: the least that a limit can cost.
const FIXED_WINDOW: &str = "local n = redis.call('INCR', KEYS[1]) \
    if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
    return n <= tonumber(ARGV[2]) and 1 or 0";
/// One key, GCRA, by Redis's clock.
const ONE_GCRA: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] \
    local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) \
    if tat - now > tonumber(ARGV[2]) then return 0 end \
    redis.call('SET', KEYS[1], string.format('%.0f', tat + ARGV[1]), 'PX', 60000) return 1";

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let (slow, fast) = if quick { (4, 3) } else { (30, 20) };
    lines.push(round_trips((20, slow), Crew::of(4), 1.0).await?);
    lines.push(round_trips((5_000, fast), Crew::of(2), 0.1).await?);
    let length = Duration::from_millis(if quick { 500 } else { 5_000 });
    lines.extend(admissions(length).await?);
    Ok(lines)
}

/// A steady rate of calls that cost nothing: what admission asks of Redis for each.
async fn round_trips((per_second, seconds): (usize, usize), crew: Crew, most: f64) -> Result<Line> {
    let mut pool = Pool::start(Rules::default(), Mode::Off).await?;
    let limit = json!({ "unit": "requests", "limit": AMPLE, "window_ms": WINDOW_MS });
    pool.define(VENDOR, &json!({ "tools": ["echo"], "limits": [limit], "concurrency": 10_000 })).await?;
    pool.man(crew).await?;
    let count = per_second * seconds;
    let counts = async || {
        let exchanges = pool.metric("tidemill_admission_exchanges_total", "for=\"calls\"").await?;
        let renewals = pool.metric("tidemill_admission_exchanges_total", "for=\"renewal\"").await?;
        let granted = pool.metric("tidemill_admissions_total", "answer=\"granted\"").await?;
        Ok::<_, anyhow::Error>((exchanges, granted, renewals))
    };
    // the middle of the load counts: what the first and the last call cost more does not depend on their number
    let middle = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = (Instant::now(), counts().await?);
        tokio::time::sleep(Duration::from_secs(seconds as u64 - 2)).await;
        Ok::<_, anyhow::Error>((before, (Instant::now(), counts().await?)))
    };
    let load = pool.steady(("echo", per_second, count), |id| id.to_string());
    let (((from, before), (to, after)), ()) = tokio::try_join!(middle, load)?;
    pool.drained(WITHIN).await?;
    let (exchanges, calls) = (after.0 - before.0, after.1 - before.1);
    let each = exchanges / calls.max(1.0);
    let conditions = format!(
        "{}, {per_second} calls/s for {seconds} s, one limit, one cap; really {:.0}/s",
        crew.name(),
        calls / (to - from).as_secs_f64()
    );
    let renewals = after.2 - before.2;
    let seen = format!(
        "{each:.4} ({exchanges} for {calls} calls), beside {renewals} that renewed what workers hold (at most one a second each)"
    );
    Ok(Line::new(
        ("cost: round trips for admission per call", conditions),
        format!("≤ {most}"),
        seen,
        Some(each <= most),
    ))
}

/// What something did to Redis in a while.
#[derive(Debug, Clone, Copy)]
struct Work {
    per_second: f64,
    /// Processor time of Redis, in microseconds.
    each_us: f64,
}

async fn admissions(length: Duration) -> Result<Vec<Line>> {
    let limit = |unit: &str| json!({ "unit": unit, "limit": AMPLE, "window_ms": WINDOW_MS });
    let one = json!({ "tools": ["echo"], "limits": [limit("requests")], "breaker": { "enabled": false }, "retry_budget": { "enabled": false } });
    let usual = json!({ "tools": ["echo"], "limits": [limit("requests")] });
    let full = json!({ "tools": ["echo"], "limits": [limit("requests"), limit("total_tokens")], "concurrency": 1_000_000 });
    let mut lines = Vec::new();
    let mut cheapest = None;
    for (name, script) in [("fixed window, INCR and PEXPIRE", FIXED_WINDOW), ("GCRA in one key", ONE_GCRA)] {
        let work = by_script(script, length).await?;
        let cheapest = cheapest.get_or_insert(work);
        let what = format!("cost: a script of one limit ({name}), calls of one");
        lines.push(line(what, work, *cheapest));
    }
    let cheapest = cheapest.context("no script was measured")?;
    for (name, definition) in [
        ("one limit, nothing else", &one),
        ("one limit, breaker, retry budget", &usual),
        ("requests, tokens, cap, breaker, retry budget", &full),
    ] {
        for batch in [1, 10, 100] {
            let work = by_admission(definition, batch, length).await?;
            let what = format!("… admission and its report ({name}), {batch} in a call");
            lines.push(line(what, work, cheapest));
        }
    }
    Ok(lines)
}

fn line(what: String, work: Work, cheapest: Work) -> Line {
    let seen = format!(
        "{:.0}/s, {:.2} µs of Redis each, {} of the cheapest script",
        work.per_second,
        work.each_us,
        percent(work.each_us / cheapest.each_us)
    );
    Line::new((what, format!("one connection, {UNDER_WAY} calls under way")), "", seen, None)
}

/// Counts what tasks do in a while, and what it costs Redis.
async fn counting(
    bench: &Bench,
    length: Duration,
    tasks: JoinSet<Result<()>>,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Work> {
    let mut tasks = tasks;
    let mut connection = bench.connect().await?;
    // what is first costs more: the library is compiled, keys are made
    tokio::time::sleep(length / 5).await;
    let (before, first) = (Info::read(&mut connection).await?.processor()?, done.load(Ordering::Relaxed));
    let start = Instant::now();
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        Some(ended) = tasks.join_next() => { ended.context("a task panicked")??; bail!("a task ended early"); }
    }
    let (took, count) = (start.elapsed(), done.load(Ordering::Relaxed) - first);
    let used = Info::read(&mut connection).await?.processor()? - before;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task panicked")??;
    }
    if count == 0 {
        bail!("nothing was admitted in {length:?}");
    }
    Ok(Work {
        per_second: count as f64 / took.as_secs_f64(),
        each_us: used.as_secs_f64() * 1e6 / count as f64,
    })
}

async fn by_script(script: &str, length: Duration) -> Result<Work> {
    let bench = Bench::start(Mode::Off, false, None, &[]).await?;
    let mut connection: MultiplexedConnection = bench.connect().await?;
    let sha: String = ask(&mut connection, &["SCRIPT", "LOAD", script]).await?;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (mut connection, sha) = (connection.clone(), sha.clone());
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // for GCRA: two microseconds a call, a burst of a second; for the window: a minute, without bound
                let words = ["EVALSHA", &sha, "1", "limit:vendor", "2", "1000000000"];
                let granted: u64 = command(&words).query_async(&mut connection).await?;
                if granted == 0 {
                    bail!("the script refused, and should not");
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    counting(&bench, length, tasks, &done, &stop).await
}

async fn by_admission(definition: &Value, batch: usize, length: Duration) -> Result<Work> {
    let bench = Bench::start(Mode::Off, false, None, &[]).await?;
    let store = bench.store()?;
    store.check().await?;
    let definition = Definition::from_json(&definition.to_string())?;
    store.services().apply(AUTHOR, VENDOR, Some(&definition)).await?;
    let has_tokens = definition.limits.len() > 1;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for number in 0..UNDER_WAY {
        let services = store.services();
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        tasks.spawn(async move {
            let (who, mut granted) = (format!("loadtest-{number}"), Vec::new());
            let mut seq = 0;
            while !stop.load(Ordering::Relaxed) {
                seq += 1;
                granted = exchange(&services, (&who, seq), &granted, (batch, has_tokens)).await?;
                done.fetch_add(granted.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    counting(&bench, length, tasks, &done, &stop).await
}

/// Reports the calls of the last exchange, and asks for as many. Gives the epochs of the grants.
async fn exchange(
    services: &Services,
    (who, seq): (&str, u64),
    ended: &[i64],
    (batch, has_tokens): (usize, bool),
) -> Result<Vec<i64>> {
    let tiers = vec![TierUse { name: VENDOR, template: VENDOR, held: 0 }];
    let report = |epoch: &i64| CallReport {
        service: Some(0),
        outcome: CallOutcome::Ok,
        latency: Duration::from_millis(50),
        epoch: *epoch,
        probe: false,
        pause: None,
        tiers: vec![0],
        corrections: Vec::new(),
        notices: Vec::new(),
    };
    let mut amounts = vec![("requests", 1.0)];
    if has_tokens {
        amounts.push(("total_tokens", 1.0));
    }
    let request = CallRequest {
        is_retry: false,
        is_hedge: false,
        patience: Duration::from_millis(50),
        service: Some(0),
        id: "loadtest",
        tiers: vec![(0, false)],
        amounts,
    };
    let asked =
        Exchange { tiers, reports: ended.iter().map(report).collect(), requests: vec![request; batch] };
    let answer = services.admit(who, seq, 0.5, &asked).await?;
    answer
        .answers
        .into_iter()
        .map(|answer| match answer {
            Answer::Granted { epoch, .. } => Ok(epoch),
            other => bail!("the limit is ample, and the answer was {other:?}"),
        })
        .collect()
}
