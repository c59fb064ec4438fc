//! What to do with a cron entry that is due: pure, so that its laws can be tested without a clock.

use tidemill_protocol::{check_id, check_queue, check_target, check_tenant};
use tidemill_store::{Cron, Missed};

use super::Schedule;

/// What to do with an entry that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Enqueue its job; the entry is due again then.
    Fire {
        /// Unix milliseconds; absent when it never is again.
        next_ms: Option<u64>,
    },
    /// Enqueue nothing.
    LetPass {
        /// Unix milliseconds; absent when it never is again.
        next_ms: Option<u64>,
    },
}

/// Refuses an entry that could not be carried out.
pub(super) fn check(cron: &Cron) -> Result<Schedule, String> {
    check_id(&id(cron, u64::MAX)).map_err(|_| {
        format!("its name {:?} is not valid: use up to 100 of A-Z a-z 0-9 . _ : @ / -", cron.name)
    })?;
    let target = match (&cron.tool, &cron.workflow) {
        (Some(tool), None) => tool,
        (None, Some(workflow)) => workflow,
        _ => return Err("it needs exactly one of `tool` and `workflow`".to_owned()),
    };
    check_target(target).map_err(|error| error.to_string())?;
    check_queue(&cron.queue).map_err(|error| error.to_string())?;
    cron.tenant.as_deref().map_or(Ok(()), check_tenant).map_err(|error| error.to_string())?;
    Schedule::parse(&cron.schedule, &cron.time_zone).map_err(|error| error.to_string())
}

/// Decides on an entry due at `due_ms`, seen at `now_ms` by Redis's clock. Up to `late_ms` after its time it is only late: it fires,
/// whatever it wants done with missed times.
pub(super) fn decide(cron: &Cron, due_ms: u64, now_ms: u64, late_ms: u64) -> Result<Decision, String> {
    let schedule = check(cron)?;
    if cron.paused {
        return Ok(Decision::LetPass { next_ms: None });
    }
    if now_ms.saturating_sub(due_ms) <= late_ms {
        return Ok(Decision::Fire { next_ms: schedule.next_after(due_ms) });
    }
    Ok(match cron.missed {
        Missed::All => Decision::Fire { next_ms: schedule.next_after(due_ms) },
        Missed::Once => Decision::Fire { next_ms: schedule.next_after(now_ms) },
        Missed::Skip => Decision::LetPass { next_ms: schedule.next_after(now_ms) },
    })
}

/// The id of the job for one time: a second job for it is recognised as a repetition.
fn id(cron: &Cron, due_ms: u64) -> String {
    format!("cron:{}:{due_ms}", cron.name)
}

/// The fields of the job for one time.
pub(super) fn fields(cron: &Cron, due_ms: u64) -> Vec<(&'static str, String)> {
    let mut fields = Vec::with_capacity(5);
    match (&cron.tool, &cron.workflow) {
        (_, Some(workflow)) => fields.push(("workflow", workflow.clone())),
        (Some(tool), None) => fields.push(("tool", tool.clone())),
        (None, None) => {}
    }
    if !cron.input.is_null() {
        fields.push(("input", cron.input.to_string()));
    }
    fields.push(("id", id(cron, due_ms)));
    if let Some(tenant) = &cron.tenant {
        fields.push(("tenant", tenant.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::{Decision, check, decide, fields};
    use serde_json::json;
    use tidemill_store::{Cron, Missed};

    const MINUTE: u64 = 60_000;

    fn cron(missed: Missed) -> Cron {
        let text = json!({ "name": "nightly", "schedule": "* * * * *", "tool": "echo", "input": {"n": 1} });
        Cron { missed, ..serde_json::from_value(text).unwrap() }
    }

    #[test]
    fn a_time_that_is_only_late_fires_whatever_is_done_with_missed_ones() {
        for missed in [Missed::Once, Missed::Skip, Missed::All] {
            let decision = decide(&cron(missed), MINUTE, MINUTE + 5_000, 5_000).unwrap();
            assert_eq!(decision, Decision::Fire { next_ms: Some(2 * MINUTE) });
        }
    }

    #[test]
    fn missed_times_fire_once_or_never_or_each_as_the_entry_wants() {
        let now = 10 * MINUTE + 1;
        let of = |missed| decide(&cron(missed), MINUTE, now, 5_000).unwrap();
        assert_eq!(of(Missed::Once), Decision::Fire { next_ms: Some(11 * MINUTE) });
        assert_eq!(of(Missed::Skip), Decision::LetPass { next_ms: Some(11 * MINUTE) });
        assert_eq!(of(Missed::All), Decision::Fire { next_ms: Some(2 * MINUTE) });
    }

    #[test]
    fn a_paused_entry_lets_its_time_pass_and_has_no_next() {
        let paused = Cron { paused: true, ..cron(Missed::Once) };
        assert_eq!(decide(&paused, MINUTE, MINUTE, 5_000).unwrap(), Decision::LetPass { next_ms: None });
    }

    #[test]
    fn the_job_of_one_time_always_has_the_same_id() {
        let made = fields(&cron(Missed::Once), MINUTE);
        assert_eq!(made, fields(&cron(Missed::All), MINUTE));
        assert!(made.contains(&("id", "cron:nightly:60000".to_owned())));
        assert!(made.contains(&("input", "{\"n\":1}".to_owned())));
    }

    #[test]
    fn an_entry_that_could_not_be_carried_out_is_refused() {
        let good = cron(Missed::Once);
        let bad = [
            (Cron { name: "a b".to_owned(), ..good.clone() }, "name"),
            (Cron { name: "x".repeat(120), ..good.clone() }, "name"),
            (Cron { workflow: Some("w".to_owned()), ..good.clone() }, "exactly one"),
            (Cron { tool: None, ..good.clone() }, "exactly one"),
            (Cron { queue: "a b".to_owned(), ..good.clone() }, "queue"),
            (Cron { tenant: Some(String::new()), ..good.clone() }, "tenant"),
            (Cron { schedule: "never".to_owned(), ..good.clone() }, "five fields"),
            (Cron { time_zone: "Nowhere".to_owned(), ..good }, "time zone"),
        ];
        for (cron, word) in bad {
            let text = check(&cron).unwrap_err();
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
