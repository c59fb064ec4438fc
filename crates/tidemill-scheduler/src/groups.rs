//! Groups: of the runs of a workflow that share a key, only so many at once.
//!
//! A group lives in the partition of its name, its runs in their own, and no function reaches both. So each place is taken and given
//! back by a call of its own that may be repeated at will: a run takes its place before it starts ([`crate::starter`]), and whoever
//! hears of its end gives the place back and has the next requests looked at. A scheduler that dies in between leaves at worst a
//! place that nobody uses, which the [`duty`] of the groups finds.

pub(crate) mod duty;

use tidemill_protocol::RunState;
use tidemill_store::{GroupMember, Partition, StopRun};

use crate::Error;
use crate::context::Context;

/// The most requests that one end has looked at.
const MOST_CALLED_UP: u32 = 100;

/// The name of a group: a workflow's name has no colon.
pub(crate) fn name_of(workflow: &str, key: &str) -> String {
    format!("{workflow}:{key}")
}

/// The workflow of a group.
pub(crate) fn workflow_of(group: &str) -> &str {
    group.split_once(':').map_or(group, |(workflow, _)| workflow)
}

/// A run of a group has ended, or its request has: the next has its turn. Telling so again changes nothing.
pub(crate) async fn left(
    context: &Context,
    group: &str,
    partition: &Partition,
    run: &str,
) -> Result<(), Error> {
    call_up(context, group, Some(&GroupMember::new(partition, run))).await?;
    Ok(())
}

/// Has the requests looked at whose turn it is; replies those that are not put aside.
pub(crate) async fn call_up(
    context: &Context,
    group: &str,
    left: Option<&GroupMember>,
) -> Result<Vec<GroupMember>, tidemill_store::Error> {
    let home = context.store.partition_of(group);
    let mut elsewhere = Vec::new();
    for next in home.leave_group(group, left, MOST_CALLED_UP).await? {
        let hastened = match context.partition(next.partition) {
            Some(partition) => partition.hasten_request(&next.run).await?,
            None => false,
        };
        if !hastened {
            elsewhere.push(next);
        }
    }
    Ok(elsewhere)
}

/// Sends a run away for a newer one of its group: a request is refused when it is looked at, and a run is cancelled.
pub(crate) async fn send_away(
    context: &Context,
    group: &str,
    member: &GroupMember,
    newer: &str,
) -> Result<(), Error> {
    let Some(partition) = context.partition(member.partition) else { return Ok(()) };
    if partition.hasten_request(&member.run).await? {
        return Ok(());
    }
    let reason = superseded(group, newer);
    let stop = StopRun {
        id: &member.run,
        to: RunState::Cancelled,
        who: &context.who,
        code: "superseded",
        reason: &reason,
        only_past_deadline: false,
        spares: false,
        by_force: false,
    };
    if partition.stop_run(&stop).await? == Some(true) {
        context.counters.group_cancelled.with(&[workflow_of(group)]).inc();
        tracing::info!(run = member.run, group, newer, "run cancelled for a newer one of its group");
    }
    Ok(())
}

fn superseded(group: &str, newer: &str) -> String {
    format!(
        "the newer run {newer:?} of group {group:?} takes its place, as the workflow says (on_full: cancel_older)"
    )
}
