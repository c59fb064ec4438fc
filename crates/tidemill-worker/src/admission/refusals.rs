//! Refusals in words: what is said to the executor, and through it to people.

use std::sync::Arc;
use std::time::Duration;

use tidemill_store::{Answer, Hindrance};

use super::Verdict;

/// Where a call goes that finds a line.
pub(crate) fn behind(tier: Arc<str>) -> Verdict {
    let hindrance = Hindrance { wait: Duration::ZERO, tier: 0, why: "line".to_owned() };
    refusal(&Answer::Line(hindrance.clone()), &hindrance, tier)
}

/// A refusal as the executor carries it out.
pub(super) fn refusal(answer: &Answer, hindrance: &Hindrance, tier: Arc<str>) -> Verdict {
    let why = hindrance.why.clone();
    match answer {
        Answer::Aside(_) => {
            let note = format!(
                "the retry budget of service {tier} is spent; it waits for the next retry that is allowed"
            );
            Verdict::Aside { wait: hindrance.wait, note }
        }
        Answer::Never(_) => {
            let unit = why.strip_prefix("too_large:").unwrap_or(&why);
            let note = format!(
                "the call needs more {unit} at once than the limit of {tier} ever allows; make it smaller, or the limit larger"
            );
            Verdict::Never { code: "too_large_for_limit", note }
        }
        Answer::Granted { .. } | Answer::Wait(_) | Answer::Line(_) => {
            let note = format!("it waits in line for {tier} ({})", explained(&why));
            Verdict::Line { tier, why, note }
        }
    }
}

/// A hindrance for people.
fn explained(why: &str) -> String {
    match why {
        "concurrency" => "all of its places are taken".to_owned(),
        "breaker" => "its breaker is open".to_owned(),
        "pause" => "it is paused".to_owned(),
        "line" => "others wait before it".to_owned(),
        other => other
            .strip_prefix("limit:")
            .map_or_else(|| other.to_owned(), |unit| format!("its limit of {unit} is reached")),
    }
}
