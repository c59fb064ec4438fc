//! The same workflow under each execution mode: ten steps of 20 ms each, five of them side by side.
//!
//! One step, five that need it, one that needs them, and three more: at least 6 × 20 ms when what may run at once does, and
//! 10 × 20 ms one after the other.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tidemill_protocol::ExecutionMode;

use super::requests::Requests;
use super::sheet::Sheet;
use crate::bench::{Bench, Mode};
use crate::queue::Info;
use crate::report::Unit;
use crate::samples::quantile;

const COLUMNS: &[&str] = &[
    "mode",
    "at least",
    "p50, one run at a time",
    "p99",
    "runs/s with 50 under way",
    "p50",
    "p99",
    "function calls per run",
];
const STEP_MS: u64 = 20;
const STEPS: u64 = 10;
/// Steps on the longest way through the graph.
const DEPTH: u64 = 6;
const UNDER_WAY: usize = 50;

pub(super) async fn show(quick: bool, set: &[String]) -> Result<Vec<Sheet>> {
    let mut sheet =
        Sheet::new("Ten steps of 20 ms, five of them side by side, in each execution mode", COLUMNS);
    for mode in ExecutionMode::ALL {
        sheet.add(one(mode, (quick, set)).await?);
    }
    Ok(vec![sheet])
}

async fn one(mode: ExecutionMode, (quick, set): (bool, &[String])) -> Result<Vec<String>> {
    let bench = Bench::start(Mode::Aof, quick, None, set).await?;
    bench.store()?.home().publish("ten", 1, &source()).await?;
    let (_worker, _scheduler) = tokio::try_join!(bench.worker(&[]), bench.scheduler())?;
    let lengths = if quick { (1, 2) } else { (10, 20) };
    let mut alone = Requests::of(&bench, ("ten", "{}"), "loadtest:alone").await?.in_mode(mode);
    // the first one compiles
    alone.keep(1, Duration::from_millis(500)).await?;
    let (mut took, _) = alone.keep(1, Duration::from_secs(lengths.0)).await?;
    alone.drain().await?;
    let mut many = Requests::of(&bench, ("ten", "{}"), "loadtest:many").await?.in_mode(mode);
    many.keep(UNDER_WAY, Duration::from_secs(1)).await?;
    let mut watching = bench.connect().await?;
    let before = Info::read(&mut watching).await?.calls("fcall");
    let (mut together, length) = many.keep(UNDER_WAY, Duration::from_secs(lengths.1)).await?;
    let calls = Info::read(&mut watching).await?.calls("fcall") - before;
    many.drain().await?;
    let steps = if mode.is_sequential() { STEPS } else { DEPTH };
    Ok(vec![
        mode.as_str().to_owned(),
        format!("{} ms", steps * STEP_MS),
        Unit::Milliseconds.show(quantile(&mut took, 0.5)),
        Unit::Milliseconds.show(quantile(&mut took, 0.99)),
        Unit::Count.show(together.len() as f64 / length.as_secs_f64()),
        Unit::Milliseconds.show(quantile(&mut together, 0.5)),
        Unit::Milliseconds.show(quantile(&mut together, 0.99)),
        format!("{:.2}", calls as f64 / together.len() as f64),
    ])
}

fn source() -> String {
    let nap = |id: &str, needs: &[&str]| json!({ "id": id, "tool": "sleep", "needs": needs, "with": { "ms": STEP_MS } });
    let five = ["b0", "b1", "b2", "b3", "b4"];
    let mut steps: Vec<Value> = vec![nap("a", &[])];
    steps.extend(five.iter().map(|id| nap(id, &["a"])));
    steps.extend([nap("c", &five), nap("d", &["c"]), nap("e", &["d"]), nap("f", &["e"])]);
    json!({ "name": "ten", "steps": steps }).to_string()
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn the_workflow_has_ten_steps_of_which_five_need_the_same_one() {
        let source = source();
        assert_eq!(source.matches(r#""tool":"sleep""#).count(), 10);
        assert_eq!(source.matches(r#""needs":["a"]"#).count(), 5);
    }
}
