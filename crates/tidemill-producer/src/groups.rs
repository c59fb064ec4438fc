//! Groups as they are shown: who has a place, and who waits for one.

use serde::Serialize;
use tidemill_store::{GroupCount, GroupMember, GroupRow, Partition, Store};
use utoipa::ToSchema;

use crate::refusal::{Code, Refusal};

/// The most groups that are listed.
const MOST_GROUPS: usize = 1_000;
/// The most runs of a group that are shown, of each kind.
const MOST_RUNS: usize = 500;

/// A group that has runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GroupLine {
    /// Its name, `workflow:key`.
    pub name: String,
    /// How many may run at once.
    pub limit: u64,
    /// How many have a place.
    pub holders: u64,
    /// How many wait for one.
    pub waiting: u64,
}

/// A run in a group.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupRunView {
    /// Its id.
    pub id: String,
    /// When it was asked for, in Unix milliseconds.
    pub asked_at_ms: u64,
}

/// A group with its runs; at most 500 of each kind.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupDetail {
    /// The group.
    #[serde(flatten)]
    pub line: GroupLine,
    /// Those that have a place, the one that was asked for first first.
    pub holding: Vec<GroupRunView>,
    /// Those that wait, in the order of their turns.
    pub queue: Vec<GroupRunView>,
}

/// Where a requested run stands in its group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GroupPlace {
    /// The group's name, `workflow:key`.
    pub name: String,
    /// How many may run at once.
    pub limit: u64,
    /// How many have a place.
    pub holders: u64,
    /// How many wait before this one; absent when its turn has come.
    pub ahead: Option<u64>,
}

impl From<GroupCount> for GroupLine {
    fn from(group: GroupCount) -> Self {
        let GroupCount { name, limit, holders, waiting } = group;
        Self { name, limit, holders, waiting }
    }
}

impl From<GroupRow> for GroupRunView {
    fn from(row: GroupRow) -> Self {
        Self { id: row.member.run, asked_at_ms: row.asked_ms }
    }
}

impl GroupPlace {
    /// What a run waits for, behind "it".
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { name, limit, holders, ahead } = self;
        match ahead {
            Some(0) => format!(
                "waits for its turn in group {name:?}: it is the next, and {holders} runs have the {limit} places"
            ),
            Some(ahead) => format!(
                "waits for its turn in group {name:?}: {ahead} wait before it, and {holders} runs have the {limit} places"
            ),
            None => format!("has its turn in group {name:?} and is about to start"),
        }
    }
}

/// The groups that have runs, those in which most wait first.
///
/// # Errors
/// Redis is not available.
pub async fn list(store: &Store, workflow: Option<&str>) -> Result<Vec<GroupLine>, Refusal> {
    let mut all: Vec<GroupLine> = Vec::new();
    for partition in store.pool() {
        let mut cursor = 0;
        loop {
            let (next, groups) = partition.groups(cursor).await?;
            let of = |group: &GroupCount| {
                workflow.is_none_or(|workflow| group.name.split(':').next() == Some(workflow))
            };
            all.extend(groups.into_iter().filter(of).map(GroupLine::from));
            cursor = next;
            if next == 0 || all.len() >= MOST_GROUPS * 10 {
                break;
            }
        }
    }
    all.sort_by(|a, b| (b.waiting, b.holders, &a.name).cmp(&(a.waiting, a.holders, &b.name)));
    all.dedup_by(|a, b| a.name == b.name);
    all.truncate(MOST_GROUPS);
    Ok(all)
}

/// A group with its runs.
///
/// # Errors
/// It has no runs, or Redis is not available.
pub async fn show(store: &Store, name: &str) -> Result<GroupDetail, Refusal> {
    let home = store.pool_partition_of(name);
    let Some(group) = home.group(name).await? else {
        let detail = format!("group {name:?} has no runs; `GET /v1/groups` lists those that have");
        return Err(Refusal::new(Code::UnknownGroup, detail));
    };
    let rows = async |waiting| -> Result<Vec<GroupRunView>, Refusal> {
        let rows = home.group_rows(name, waiting, 0, MOST_RUNS).await?;
        Ok(rows.into_iter().map(GroupRunView::from).collect())
    };
    Ok(GroupDetail { holding: rows(false).await?, queue: rows(true).await?, line: group.into() })
}

/// Where a requested run stands that was put aside for its group; `None` when it was put aside for something else.
pub(crate) async fn place_of(
    store: &Store,
    partition: &Partition,
    id: &str,
) -> Result<Option<GroupPlace>, Refusal> {
    let Some(name) = partition.group_of_request(id).await? else { return Ok(None) };
    let home = store.pool_partition_of(&name);
    let ahead = home.group_place(&name, &GroupMember::new(partition, id)).await?;
    let group = home.group(&name).await?;
    let (limit, holders) = group.map_or((0, 0), |group| (group.limit, group.holders));
    Ok(Some(GroupPlace { name, limit, holders, ahead }))
}
