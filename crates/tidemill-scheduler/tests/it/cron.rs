use serde_json::json;
use tidemill_scheduler::{Scheduler, Setup};
use tidemill_store::{Cron, Missed};
use tidemill_testkit::wait_for;

use crate::pool::{Pool, SOON, quick};

const QUEUE: &str = "tm:{0}:jobs:default";

fn cron(name: &str, schedule: &str) -> Cron {
    serde_json::from_value(json!({ "name": name, "schedule": schedule, "tool": "echo", "input": [1] }))
        .unwrap()
}

/// The due times of the jobs that a cron entry made, in seconds, in their order.
async fn fired(pool: &Pool, name: &str) -> Vec<u64> {
    let text = pool.cli(&["XRANGE", QUEUE, "-", "+"]).await;
    let prefix = format!("cron:{name}:");
    let ids = text.split_whitespace().filter_map(|word| word.trim_matches('"').strip_prefix(&prefix));
    ids.map(|ms| ms.parse::<u64>().unwrap() / 1000).collect()
}

async fn fired_at_least(pool: &Pool, name: &str, count: usize) -> Vec<u64> {
    wait_for(SOON, &format!("{count} firings"), async || {
        let times = fired(pool, name).await;
        if times.len() >= count { Ok(times) } else { Err(format!("{times:?}")) }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn each_time_fires_once_over_two_schedulers_and_a_restart_of_both() {
    let pool = Pool::start().await;
    let entry = vec![cron("tick", "* * * * * *")];
    let one = pool.schedule_crons(entry.clone()).await;
    let two = pool.schedule_crons(entry.clone()).await;
    fired_at_least(&pool, "tick", 3).await;
    one.stop().await;
    two.stop().await;
    let three = pool.schedule_crons(entry.clone()).await;
    let _four = pool.schedule_crons(entry).await;
    let seen = fired(&pool, "tick").await.len();
    let times = fired_at_least(&pool, "tick", seen + 3).await;
    let first = times[0];
    let expected: Vec<u64> = (first..first + times.len() as u64).collect();
    assert_eq!(times, expected, "every second once, none left out, none twice");
    three.stop().await;
}

#[tokio::test]
async fn missed_times_fire_once_or_never_or_each() {
    let pool = Pool::start().await;
    let now_ms = pool.home().now_ms().await.unwrap();
    let due_ms = (now_ms / 60_000 - 10) * 60_000;
    for (name, missed) in [("once", Missed::Once), ("skip", Missed::Skip), ("all", Missed::All)] {
        let entry = Cron { missed, ..cron(name, "* * * * *") };
        pool.home().set_cron(&entry, Some(due_ms)).await.unwrap();
    }
    let scheduler = pool.schedule(quick()).await;
    scheduler.count_is("tidemill_cron_skipped_total", 1).await;
    let all = fired_at_least(&pool, "all", 10).await;
    assert_eq!(all[..10], (0..10).map(|at| due_ms / 1000 + at * 60).collect::<Vec<_>>()[..], "oldest first");
    let once = fired_at_least(&pool, "once", 1).await;
    assert_eq!(once[0], due_ms / 1000);
    // a new minute may have begun while the test ran
    assert!(once.get(1).is_none_or(|at| *at > now_ms / 1000), "{once:?}");
    assert!(fired(&pool, "skip").await.first().is_none_or(|at| *at > now_ms / 1000));
    for (entry, next, last) in pool.home().crons().await.unwrap() {
        assert!(next.unwrap() > now_ms, "{}: {next:?}", entry.name);
        assert!(last.is_some());
    }
}

#[tokio::test]
async fn a_restart_does_not_disturb_the_next_time_of_an_entry_that_is_the_same() {
    let pool = Pool::start().await;
    let entry = cron("yearly", "0 0 1 1 *");
    let first = pool.schedule_crons(vec![entry.clone()]).await;
    pool.count_is("HLEN", "tm:{0}:crons", 1).await;
    first.stop().await;
    let (stored, next, _) = pool.home().crons().await.unwrap().remove(0);
    assert_eq!(stored, entry);
    assert!(next.is_some());
    // a due time that only the entry's own history can explain
    pool.home().set_cron(&entry, Some(4_000_000_000_000)).await.unwrap();
    let same = pool.schedule_crons(vec![entry.clone()]).await;
    same.count_at_least("tidemill_duty_ticks_total{duty=\"cron\"}", 2).await;
    same.stop().await;
    assert_eq!(pool.home().crons().await.unwrap()[0].1, Some(4_000_000_000_000));
    let changed = Cron { schedule: "0 0 1 2 *".to_owned(), ..entry };
    let other = pool.schedule_crons(vec![changed]).await;
    wait_for(SOON, "a new next time", async || {
        let next = pool.home().crons().await.unwrap()[0].1;
        if next == Some(4_000_000_000_000) { Err("still the old one".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
    other.stop().await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_carried_out_is_told_and_keeps_nobody_waiting() {
    let pool = Pool::start().await;
    let bad = Cron { schedule: "never".to_owned(), ..cron("bad", "@daily") };
    pool.home().set_cron(&bad, Some(1_000)).await.unwrap();
    pool.cli(&["HSET", "tm:{0}:crons", "worse", "not json"]).await;
    pool.cli(&["ZADD", "tm:{0}:cron_due", "1000", "worse"]).await;
    pool.cli(&["ZADD", "tm:{0}:cron_due", "1000", "gone"]).await;
    let good = cron("good", "* * * * * *");
    pool.home().set_cron(&good, Some(pool.home().now_ms().await.unwrap())).await.unwrap();
    let scheduler = pool.schedule(quick()).await;
    fired_at_least(&pool, "good", 2).await;
    scheduler.count_is("tidemill_cron_invalid_total", 2).await;
    assert_eq!(
        pool.cli(&["ZSCORE", "tm:{0}:cron_due", "gone"]).await,
        "",
        "what was removed is not due again"
    );
}

#[tokio::test]
async fn an_entry_written_without_a_next_time_gets_one_and_starts_runs() {
    let pool = Pool::start().await;
    pool.publish("{\"name\":\"w\",\"steps\":[{\"id\":\"a\",\"tool\":\"echo\"}]}").await;
    let entry = Cron { tool: None, workflow: Some("w".to_owned()), ..cron("nightly", "* * * * * *") };
    pool.cli(&["HSET", "tm:{0}:crons", "nightly", &serde_json::to_string(&entry).unwrap()]).await;
    pool.schedule(quick()).await;
    let run = wait_for(SOON, "a run", async || {
        let runs = pool.home().live_runs(0, 1).await.unwrap();
        runs.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await
    .unwrap();
    assert!(run.starts_with("cron:nightly:"), "{run}");
    assert_eq!(pool.run(&run).await.input, b"[1]");
}

#[tokio::test]
async fn a_configured_entry_that_could_not_be_carried_out_is_refused_at_the_start() {
    let pool = Pool::start().await;
    for (entry, word) in [
        (Cron { time_zone: "Mars/Olympus".to_owned(), ..cron("a", "@daily") }, "time zone"),
        (Cron { tool: None, ..cron("a", "@daily") }, "exactly one"),
    ] {
        let setup = Setup { crons: vec![cron("fine", "@daily"), entry], ..pool.setup(quick()) };
        let text = Scheduler::new(setup).unwrap_err().to_string();
        assert!(text.contains("cron[1]") && text.contains(word), "{text}");
    }
    let twice = Setup { crons: vec![cron("a", "@daily"), cron("a", "@hourly")], ..pool.setup(quick()) };
    assert!(Scheduler::new(twice).unwrap_err().to_string().contains("twice"));
}

#[tokio::test]
async fn a_paused_entry_does_not_fire() {
    let pool = Pool::start().await;
    let paused = Cron { paused: true, ..cron("paused", "* * * * * *") };
    pool.home().set_cron(&paused, Some(1_000)).await.unwrap();
    let good = cron("good", "* * * * * *");
    pool.home().set_cron(&good, Some(1_000)).await.unwrap();
    pool.schedule(quick()).await;
    fired_at_least(&pool, "good", 2).await;
    assert!(fired(&pool, "paused").await.is_empty());
}
