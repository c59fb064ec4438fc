//! A limit that nobody told: the pool finds it from the refusals of a vendor, and stays near it.

use std::time::Duration;

use serde_json::json;
use tidemill_testkit::referee::{Referee, Report, Rules};
use tidemill_worker::Settings;

use crate::pool::Pool;
use crate::services::registry;

/// What the vendor allows in a second, and keeps to itself.
const HIDDEN: u64 = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// Long enough for the way up and a few turns at the limit.
const WATCHED_CALLS: usize = 400;
const JOBS: usize = 500;

/// How the calls went, for who has to find out why a search failed.
fn course(report: &Report) -> String {
    let (first, last) = (report.arrivals[0].at, report.arrivals[WATCHED_CALLS - 1].at);
    let parts = (0..8).map(|part| {
        let (from, to) = (first + (last - first) * part / 8, first + (last - first) * (part + 1) / 8);
        let refused = report.between(from, to).filter(|call| !call.is_admitted()).count();
        format!(
            "from {from:.1?}: {:.2} of the limit, {refused} refused",
            report.use_share(from, to).requests_share
        )
    });
    format!("{report}\n{}", parts.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_nobody_told_is_found_and_used() {
    let mut pool = Pool::start().await;
    // its refusals do not tell when to come again
    let referee = Referee::start_with(Rules::default().requests(HIDDEN, WINDOW)).unwrap();
    let auto = json!({ "unit": "requests", "limit": "auto", "window_ms": 1_000, "initial": 8, "max": 500 });
    pool.service("vendor", json!({ "tools": ["http.request"], "limits": [auto] })).await;
    for _ in 0..3 {
        pool.worker_with(Settings::default(), registry());
    }
    pool.calls(&referee, 0..JOBS, &[]).await;
    let watched = tokio::time::timeout(Duration::from_secs(90), referee.await_calls(WATCHED_CALLS)).await;
    let report = referee.report();
    assert!(watched.is_ok(), "the pool is far from the limit: {report}");
    let course = course(&report);
    println!("{course}");

    let (first, last) = (report.arrivals[0].at, report.arrivals[WATCHED_CALLS - 1].at);
    let used = report.use_share(first + (last - first) * 2 / 3, last).requests_share;
    assert!(used >= 0.6, "{used:.2} of the limit is used in the last third: {course}");
    assert!(report.violations > 0, "it was not even reached: {course}");
    assert!(report.violations * 20 < report.calls, "one in twenty is refused, or more: {course}");

    // the rest need not be waited for
    referee.set(Rules::default());
    pool.service("vendor", json!({ "tools": ["http.request"] })).await;
    pool.drained().await;
    let letters = pool.store.home().letters(None, 10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!(referee.report().admitted, JOBS, "no job is lost, none is done twice");
}
