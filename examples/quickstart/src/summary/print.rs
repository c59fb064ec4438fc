//! The summary for people.

use std::fmt::Write;
use std::path::Path;

use super::{REPORT, RESULTS, SUMMARY, Summary};
use crate::records;
use crate::work::REPLIES;

/// How many dead letters are shown.
const SHOWN_LETTERS: usize = 5;

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn by_state<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let parts: Vec<_> =
        counts.into_iter().map(|(state, count)| format!("{} {state}", grouped(*count))).collect();
    parts.join(", ")
}

fn line(text: &mut String, name: &str, value: &str) {
    // writing to a String cannot fail
    writeln!(text, "  {name:<13} {value}").unwrap_or_default();
}

fn add_vendor(add: &mut impl FnMut(&str, &str), summary: &Summary) {
    let vendor = &summary.vendor;
    let tenths = (vendor.failures() * 1_000).checked_div(vendor.calls).unwrap_or(0);
    let share = format!("{}.{} %", tenths / 10, tenths % 10);
    add(
        "vendor",
        &format!(
            "{} calls, of which {} failed ({share}):",
            grouped(vendor.calls),
            grouped(vendor.failures())
        ),
    );
    for (fault, count) in &vendor.failed {
        add("", &format!("{count:>5} × {}", fault.describe()));
    }
    if summary.sent_again > 0 {
        let again = grouped(summary.sent_again);
        add(
            "",
            &format!(
                "{again} of them were sent again at once (a GET, cut on a kept connection); the rest were retried"
            ),
        );
    }
}

/// The summary as a block of lines.
pub(crate) fn text(summary: &Summary, folder: &Path) -> String {
    let mut text = format!(
        "\nTidemill surveyed {} cities with {} workers in {}.\n\n",
        grouped(summary.records as u64),
        summary.workers,
        seconds(summary.wall_ms)
    );
    let mut add = |name: &str, value: &str| line(&mut text, name, value);
    add("runs", &by_state(&summary.runs));
    add("steps", &by_state(&summary.steps));
    let (attempts, retries) = (grouped(summary.attempts), grouped(summary.retries));
    add(
        "attempts",
        &format!("{attempts}, {retries} of them retries; {} in all, side by side", seconds(summary.step_ms)),
    );
    add("dead letters", &grouped(summary.dead_letters.len() as u64));
    for letter in summary.dead_letters.iter().take(SHOWN_LETTERS) {
        add("", &format!("{}: {}: {}", letter.id, letter.code, letter.reason));
    }
    add_vendor(&mut add, summary);
    let repeated = summary.vendor.repeated_after_success;
    add("done twice", &format!("{repeated} calls after one with the same idempotency key had succeeded"));
    add(
        "speed",
        &format!(
            "{} here; waiting for the vendor alone, call after call, takes {}: {:.1} times as fast",
            seconds(summary.wall_ms),
            seconds(summary.sequential_ms),
            summary.speed_up()
        ),
    );
    add(
        "one run",
        &format!(
            "p50 {}, p99 {}, slowest {}, waiting for retries included",
            seconds(summary.run_p50_ms),
            seconds(summary.run_p99_ms),
            seconds(summary.run_max_ms)
        ),
    );
    let all = grouped(records::available() as u64);
    add("data", &format!("{} of the {all} cities in {}", grouped(summary.records as u64), records::SOURCE));
    add("results", &folder.join(RESULTS).display().to_string());
    add("report", &format!("{} (best places first)", folder.join(REPORT).display()));
    add("as JSON", &folder.join(SUMMARY).display().to_string());
    text
}

/// What to try next. With a kept pool: its URL, the address of its API, and a run's id.
pub(crate) fn next(kept: Option<(&str, &str, &str)>, programs: &Path) -> String {
    let Some((url, api, run)) = kept else {
        return "\nLook around in a running pool next: ./tidemill-quickstart --keep\n".to_owned();
    };
    let tidemill = programs.join("tidemill");
    let tidemill = tidemill.display();
    format!(
        "\nThe pool is kept running until Ctrl-C. In another terminal:\n
  export TIDEMILL_REDIS_URL={url}
  {tidemill} status {run}
  {tidemill} audit {run}
  {tidemill} workers
  {tidemill} queues
  {tidemill} workflow graph survey-city
  {tidemill} enqueue jq.transform --input '{{\"filter\":\"1 + 1\"}}' --wait
  curl http://{api}/v1/runs/{run}
  redis-cli -u {url} XREVRANGE {REPLIES} + - COUNT 1\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{grouped, next, text};
    use crate::summary::Summary;
    use crate::vendor::{Fault, VendorCounts};

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_summary_says_what_happened_and_where_it_is() {
        let vendor = VendorCounts {
            calls: 2_000,
            succeeded: 1_900,
            failed: [(Fault::Cut, 99)].into(),
            repeated_after_success: 0,
        };
        let summary = Summary {
            records: 600,
            workers: 3,
            runs: [("succeeded".to_owned(), 600)].into(),
            vendor,
            wall_ms: 4_200,
            sequential_ms: 210_000,
            ..Summary::default()
        };
        let text = text(&summary, Path::new("data"));
        for part in
            ["600 succeeded", "99 failed (4.9 %)", "99 × connection cut", "50.0 times", "data/results.ndjson"]
        {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
        assert!(summary.is_clean());
    }

    #[test]
    fn a_kept_pool_comes_with_commands_for_it() {
        let text = next(Some(("redis://127.0.0.1:1/0", "127.0.0.1:2", "city-00001")), Path::new("bin"));
        assert!(
            text.contains("bin/tidemill status city-00001") && text.contains("127.0.0.1:2/v1/runs/"),
            "{text}"
        );
    }
}
