//! Steps that wait: their alarms, and what they hear of the ends of runs.
//!
//! Each act is one function that can be done again: a scheduler that dies between two of them leaves an entry that another finds.

use bytes::Bytes;
use tidemill_protocol::{CHILD, EntryId, RunState, StepRecord, StepState};
use tidemill_runtime::crash::{self, Point};
use tidemill_store::{Content, Delivered, Partition, Slot, StepLetter, keys};
use tidemill_workflow::Plan;
use tidemill_workflow::orchestrate::open_children;

use crate::Error;
use crate::context::{Context, count};
use crate::groups;
use crate::plans::NoPlan;

/// Wakes the steps whose alarms are due; replies how many were.
pub(crate) async fn wake_due(partition: &Partition, members: &[String]) -> Result<u64, Error> {
    let slots: Vec<Option<Slot>> = members.iter().map(|member| Slot::of_member(member)).collect();
    let mut strays: Vec<String> = members
        .iter()
        .zip(&slots)
        .filter(|(_, slot)| slot.is_none())
        .map(|(member, _)| member.clone())
        .collect();
    let slots: Vec<Slot> = slots.into_iter().flatten().collect();
    let wanted: Vec<_> = slots
        .iter()
        .map(|slot| (partition.keys().run(&slot.run), vec!["wf".to_owned(), slot.field()]))
        .collect();
    let rows = partition.run_fields(&wanted).await?;
    let texts: Vec<(String, Option<StepRecord>)> = rows.into_iter().map(workflow_and_record).collect();
    let letters: Vec<StepLetter<'_>> = slots
        .iter()
        .zip(&texts)
        .map(|(slot, (workflow, record))| StepLetter {
            slot,
            workflow,
            queue: record.as_ref().map_or("default", |record| keys::base_of(&record.queue)),
            content: Content::Due,
        })
        .collect();
    let mut woken = 0;
    crash::before(Point::SchedulerAlarm);
    let delivered = partition.deliver(&letters).await?;
    crash::after(Point::SchedulerAlarm);
    for (delivered, slot) in delivered.into_iter().zip(&slots) {
        match delivered {
            Delivered::Woke | Delivered::Kept => woken += 1,
            // its run, or the step, has ended: nobody else would take the alarm away
            Delivered::Unwanted | Delivered::RunGone => strays.push(slot.member()),
            Delivered::Nothing => {}
        }
    }
    partition.drop_due(keys::WAITS, &strays).await?;
    Ok(woken)
}

fn workflow_and_record(row: Vec<Option<Bytes>>) -> (String, Option<StepRecord>) {
    let mut texts =
        row.into_iter().map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()));
    let workflow = texts.next().flatten().unwrap_or_default();
    (workflow, texts.next().flatten().as_deref().and_then(StepRecord::parse))
}

/// A run that others wait for, or that has steps waiting, has ended: they are told.
pub(crate) async fn ended(context: &Context, partition: &Partition, run: &str) -> Result<(), Error> {
    let names = ["st", "par", "wa", "wf", "out", "ref", "err", "grp", "to"].map(str::to_owned);
    let row = partition.fields_of(run, None, &names).await?;
    let [state, parent, waits, workflow, out, reference, error, group, to] =
        <[Option<Bytes>; 9]>::try_from(row).map_err(|_| {
            tidemill_store::Error::Corrupt("a run's fields did not come as asked for".to_owned())
        })?;
    let text = |value: Option<Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
    let state = text(state);
    if state.is_none() {
        tell_of_lost(context, partition, run).await?;
        return Ok(partition.drop_mail(run).await?);
    }
    let Some(state) = state.as_deref().and_then(RunState::parse).filter(|state| state.is_terminal()) else {
        // it is ending
        if to.is_some() {
            wake_all(context, partition, (run, &text(workflow).unwrap_or_default())).await?;
        }
        return Ok(());
    };
    if let Some(parent) = text(parent) {
        let output = match (out, text(reference)) {
            (Some(out), _) => Some(out),
            (None, Some(step)) => {
                partition.fields_of(run, None, &[format!("o{step}")]).await?.into_iter().next().flatten()
            }
            (None, None) => None,
        };
        let output = output.filter(|_| state == RunState::Succeeded);
        tell_parent(context, partition, &parent, (state, output.as_deref(), error.as_deref())).await?;
    }
    if let Some(group) = text(group) {
        groups::left(context, &group, partition, run).await?;
    }
    if waits.is_some() {
        let workflow = text(workflow).unwrap_or_default();
        wake_all(context, partition, (run, &workflow)).await?;
        drop_alarms(context, partition, (run, &workflow)).await?;
        partition.drop_mail(run).await?;
    }
    Ok(())
}

/// A run that was asked for is not there: its request was cancelled before it began, or its record was gone before its end was told.
/// Whoever waits for it would do so for ever.
async fn tell_of_lost(context: &Context, partition: &Partition, run: &str) -> Result<(), Error> {
    let Some((parent, own)) = run.rsplit_once(CHILD) else { return Ok(()) };
    let head = partition.fields_of(parent, None, &["wf".to_owned()]).await?;
    let (workflow, _) = workflow_and_record(head);
    if workflow.is_empty() {
        return Ok(());
    }
    let Some(plan) = plan_of(context, &workflow).await? else { return Ok(()) };
    for (at, step) in (0_u32..).zip(&plan.steps).filter(|(_, step)| step.is_orchestrated()) {
        let Some(key) = own.strip_prefix(&*step.id).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let memo = partition.fields_of(parent, None, &[format!("w{at}")]).await?.into_iter().next().flatten();
        if !memo.is_some_and(|memo| open_children(&memo).iter().any(|open| open == key)) {
            continue;
        }
        let message = format!("run {run} was cancelled before it began, or its record is gone");
        let error = serde_json::json!({ "code": "child_gone", "message": message }).to_string();
        let told = (RunState::Cancelled, None, Some(error.as_bytes()));
        tell_parent(context, partition, &format!("{parent} {at} {key}"), told).await?;
    }
    Ok(())
}

/// Takes away the alarms of a run that has ended: they may lie far ahead, and mean nothing any more.
async fn drop_alarms(
    context: &Context,
    partition: &Partition,
    (run, workflow): (&str, &str),
) -> Result<(), Error> {
    let Some(plan) = plan_of(context, workflow).await? else { return Ok(()) };
    let members: Vec<String> = (0_u32..)
        .zip(&plan.steps)
        .filter(|(_, step)| step.is_orchestrated())
        .map(|(at, step)| {
            Slot { run: run.to_owned(), step: at, item: None, name: step.id.to_string() }.member()
        })
        .collect();
    for stretch in members.chunks(500) {
        partition.drop_due(keys::WAITS, stretch).await?;
    }
    Ok(())
}

/// Tells the step that asked for a run how it ended. `parent` is `<run> <step> <key>`.
pub(crate) async fn tell_parent(
    context: &Context,
    partition: &Partition,
    parent: &str,
    (state, output, error): (RunState, Option<&[u8]>, Option<&[u8]>),
) -> Result<(), Error> {
    let mut words = parent.split(' ');
    let (Some(run), Some(Ok(step)), Some(key)) =
        (words.next(), words.next().map(str::parse::<u32>), words.next())
    else {
        tracing::warn!(parent, "a run says that another asked for it, but not which");
        return Ok(());
    };
    let names = ["wf".to_owned(), format!("s{step}")];
    let (workflow, record) = workflow_and_record(partition.fields_of(run, None, &names).await?);
    let Some(record) = record else { return Ok(()) };
    let name = step_name(context, &workflow, step).await?;
    let slot = Slot { run: run.to_owned(), step, item: None, name };
    let mut payload =
        format!(r#"{{"type":"ended","child":"{key}","state":"{}""#, state.as_str()).into_bytes();
    for (member, text) in [("output", output), ("error", error)] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            payload.extend_from_slice(format!(r#","{member}":"#).as_bytes());
            payload.extend_from_slice(text);
        }
    }
    payload.push(b'}');
    let letter = StepLetter {
        slot: &slot,
        workflow: &workflow,
        queue: keys::base_of(&record.queue),
        content: Content::News { key: &format!("ended.{key}"), payload: &payload },
    };
    crash::before(Point::SchedulerEnded);
    let _ = partition.deliver(&[letter]).await?;
    crash::after(Point::SchedulerEnded);
    Ok(())
}

/// The id of a step, for the audit; a plan that cannot be had anymore leaves its number.
pub(crate) async fn step_name(context: &Context, workflow: &str, step: u32) -> Result<String, Error> {
    let plan = plan_of(context, workflow).await?;
    let name = plan.as_ref().and_then(|plan| plan.step(step)).map(|step| step.id.to_string());
    Ok(name.unwrap_or_else(|| format!("#{step}")))
}

async fn plan_of(context: &Context, workflow: &str) -> Result<Option<std::sync::Arc<Plan>>, Error> {
    match context.plans.of(workflow).await {
        Ok(plan) => Ok(Some(plan)),
        Err(NoPlan::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(workflow, %error, "steps that wait cannot be told by name");
            Ok(None)
        }
    }
}

/// Wakes every step of a run that waits, so that it sees that its run has ended.
async fn wake_all(
    context: &Context,
    partition: &Partition,
    (run, workflow): (&str, &str),
) -> Result<(), Error> {
    let Some(plan) = plan_of(context, workflow).await? else { return Ok(()) };
    let steps: Vec<u32> =
        (0_u32..).zip(&plan.steps).filter(|(_, step)| step.is_orchestrated()).map(|(at, _)| at).collect();
    let names: Vec<String> = steps.iter().map(|step| format!("s{step}")).collect();
    let records = partition.fields_of(run, None, &names).await?;
    let waiting: Vec<(Slot, StepRecord)> = steps
        .iter()
        .zip(records)
        .filter_map(|(step, record)| {
            let record = StepRecord::parse(std::str::from_utf8(&record?).ok()?)?;
            let name = plan.step(*step)?.id.to_string();
            let waits = record.state == StepState::Waiting;
            waits.then(|| (Slot { run: run.to_owned(), step: *step, item: None, name }, record))
        })
        .collect();
    for stretch in waiting.chunks(100) {
        let letters: Vec<_> = stretch
            .iter()
            .map(|(slot, record)| StepLetter {
                slot,
                workflow,
                queue: keys::base_of(&record.queue),
                content: Content::Wake,
            })
            .collect();
        let _ = partition.deliver(&letters).await?;
    }
    Ok(())
}

/// Deals with notices that were claimed, and drops their entries when that is done.
pub(crate) async fn notices(
    context: &Context,
    partition: &Partition,
    notices: Vec<(EntryId, tidemill_protocol::Notice)>,
) -> Result<(), Error> {
    if notices.is_empty() {
        return Ok(());
    }
    let mut done = Vec::with_capacity(notices.len());
    for (entry, notice) in notices {
        match notice {
            tidemill_protocol::Notice::Ended { run } => ended(context, partition, &run).await?,
            tidemill_protocol::Notice::Left { run, group } => {
                groups::left(context, &group, partition, &run).await?;
            }
        }
        done.push(entry);
    }
    let dropped = partition.drop_entries(&partition.keys().runs(), keys::SCHEDULERS, &done).await?;
    context.counters.notices.inc_by(dropped.max(count(0)));
    Ok(())
}
