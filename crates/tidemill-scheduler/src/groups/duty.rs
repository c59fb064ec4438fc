//! What nobody told: places of runs that have ended, and turns that nobody took.
//!
//! Each round walks all groups with runs. A place whose run has ended is given back at once. One whose run does not exist belongs to a
//! run that is just about to start, or to one that never will because its request was lost; it is given back after it stood so for as
//! long as no living scheduler needs between the two.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidemill_protocol::RunState;
use tidemill_runtime::clock::Instant;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{GroupCount, GroupMember, Partition};

use super::{call_up, workflow_of};
use crate::Error;
use crate::context::Context;

/// Runs of a group that are read in one call.
const PAGE: usize = 200;
/// The pause between two pages of groups.
const BREATH: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Groups {
    context: Context,
    /// Which partition, and how far in it.
    partition: usize,
    cursor: u64,
    round: u64,
    /// Places without a run: since when, and the round that saw it last.
    vacant: HashMap<(String, GroupMember), (Instant, u64)>,
    /// Holders and waiting runs of this round, by workflow.
    counted: BTreeMap<String, (i64, i64)>,
    /// Workflows whose gauges say something else than nothing.
    shown: BTreeMap<String, (i64, i64)>,
}

/// What is known of the run of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tenant {
    Living,
    Ended,
    Absent,
}

impl Groups {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            partition: 0,
            cursor: 0,
            round: 0,
            vacant: HashMap::new(),
            counted: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// The next page of groups. `true`: the round is complete.
    async fn page(&mut self) -> Result<bool, Error> {
        let Some(partition) = self.context.partitions().get(self.partition).cloned() else { return Ok(true) };
        let (next, groups) = partition.groups(self.cursor).await?;
        for group in &groups {
            let (held, waits) = self.counted.entry(workflow_of(&group.name).to_owned()).or_default();
            *held += i64::try_from(group.holders).unwrap_or(i64::MAX);
            *waits += i64::try_from(group.waiting).unwrap_or(i64::MAX);
            self.look_at(&partition, group).await?;
        }
        self.cursor = next;
        if next == 0 {
            self.partition += 1;
        }
        Ok(self.partition >= self.context.partitions().len())
    }

    async fn look_at(&mut self, home: &Partition, group: &GroupCount) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let rows = home.group_rows(&group.name, false, offset, PAGE).await?;
            let members: Vec<GroupMember> = rows.into_iter().map(|row| row.member).collect();
            let gone = self.gone(&group.name, &members).await?;
            for member in &gone {
                self.free(&group.name, member).await?;
            }
            // what was given back is not counted by the next page
            offset += members.len() - gone.len();
            if members.len() < PAGE {
                break;
            }
        }
        let (held, limit) = (group.holders, group.limit);
        if held < limit && (group.waiting > 0 || held == 0) {
            let elsewhere = call_up(&self.context, &group.name, None).await?;
            for member in self.gone(&group.name, &elsewhere).await? {
                self.free(&group.name, &member).await?;
            }
        }
        Ok(())
    }

    /// Those of the members whose runs have ended, or were absent for too long.
    async fn gone(&mut self, group: &str, members: &[GroupMember]) -> Result<Vec<GroupMember>, Error> {
        let tenants = self.tenants(members).await?;
        let mut gone = Vec::new();
        for (member, tenant) in members.iter().zip(tenants) {
            let key = (group.to_owned(), member.clone());
            let is_gone = match tenant {
                Tenant::Living => false,
                Tenant::Ended => true,
                Tenant::Absent => {
                    let (now, round) = (Instant::now(), self.round);
                    let (since, seen) = self.vacant.entry(key.clone()).or_insert((now, round));
                    *seen = round;
                    now.saturating_duration_since(*since) >= self.patience()
                }
            };
            if is_gone {
                self.vacant.remove(&key);
                gone.push(member.clone());
            }
        }
        Ok(gone)
    }

    /// No scheduler that lives takes longer from taking a place to starting the run.
    fn patience(&self) -> Duration {
        let settings = &self.context.settings;
        Duration::from_millis(settings.stalled_after_ms).max(settings.dead_after() * 3)
    }

    async fn tenants(&self, members: &[GroupMember]) -> Result<Vec<Tenant>, Error> {
        let mut tenants = vec![Tenant::Absent; members.len()];
        let mut by_partition: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            by_partition.entry(member.partition).or_default().push(at);
        }
        for (partition, places) in by_partition {
            let Some(partition) = self.context.partition(partition) else { continue };
            let wanted: Vec<_> = places
                .iter()
                .filter_map(|at| members.get(*at))
                .map(|member| (partition.keys().run(&member.run), vec!["st".to_owned()]))
                .collect();
            let rows = partition.run_fields(&wanted).await?;
            for (at, row) in places.iter().zip(rows) {
                let state = row.into_iter().next().flatten();
                let Some(state) = state else { continue };
                let ended = std::str::from_utf8(&state).ok().and_then(RunState::parse);
                let ended = ended.is_some_and(RunState::is_terminal);
                if let Some(tenant) = tenants.get_mut(*at) {
                    *tenant = if ended { Tenant::Ended } else { Tenant::Living };
                }
            }
        }
        Ok(tenants)
    }

    async fn free(&self, group: &str, member: &GroupMember) -> Result<(), Error> {
        call_up(&self.context, group, Some(member)).await?;
        self.context.counters.repaired.with(&["group_place"]).inc();
        tracing::warn!(group, run = member.run, "a place in a group was given back whose run is gone");
        Ok(())
    }

    fn end_round(&mut self) {
        let round = self.round;
        self.vacant.retain(|_, (_, seen)| *seen == round);
        let counted = std::mem::take(&mut self.counted);
        for workflow in self.shown.keys().filter(|workflow| !counted.contains_key(*workflow)) {
            self.show(workflow, (0, 0));
        }
        for (workflow, counts) in &counted {
            self.show(workflow, *counts);
        }
        self.shown = counted;
        (self.partition, self.cursor, self.round) = (0, 0, round + 1);
    }

    fn show(&self, workflow: &str, (held, waits): (i64, i64)) {
        self.context.counters.group_holders.with(&[workflow]).set(held);
        self.context.counters.group_waiting.with(&[workflow]).set(waits);
    }
}

impl Duty for Groups {
    const NAME: &'static str = "groups";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        if self.page().await? {
            self.end_round();
            return Ok(Tick::After(Duration::from_millis(self.context.settings.audit_every_ms)));
        }
        Ok(Tick::After(BREATH))
    }
}
