//! What a search tells about each run.

use bytes::Bytes;
use serde::Serialize;
use tidemill_protocol::{Labels, RunState};

use super::{Found, RunCursor};
use crate::{Error, Store};

/// One run of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: RunState,
    /// Its workflow as `name@version`; of a block `name@version#path`.
    pub workflow: String,
    /// When it started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Owner.
    pub tenant: Option<String>,
    /// The run that asked for it.
    pub parent: Option<String>,
    /// What it is found by.
    pub labels: Labels,
}

impl RunRow {
    pub(super) fn cursor(&self) -> RunCursor {
        RunCursor { started_ms: self.started_ms, id: self.id.clone() }
    }

    fn of(cursor: RunCursor, row: Vec<Option<Bytes>>) -> Option<Self> {
        let mut fields = row.into_iter();
        let mut text = || fields.next().flatten().map(|value| String::from_utf8_lossy(&value).into_owned());
        let (state, workflow, ended, tenant, labels) = (text()?, text()?, text(), text(), text());
        let parent = cursor.id.rsplit_once(tidemill_protocol::CHILD).map(|(parent, _)| parent.to_owned());
        Some(Self {
            state: RunState::parse(&state)?,
            workflow,
            // the place in the order, also where the run itself was changed by hand
            started_ms: cursor.started_ms,
            ended_ms: ended.and_then(|ms| ms.parse().ok()),
            tenant,
            parent,
            labels: labels.map(|labels| Labels::stored(labels.as_bytes())).unwrap_or_default(),
            id: cursor.id,
        })
    }
}

impl Store {
    /// What is known of each, in their order; those that are gone are left out.
    pub(super) async fn rows(&self, found: Vec<Found>) -> Result<Vec<RunRow>, Error> {
        let names = ["st", "wf", "t2", "ten", "lb"].map(str::to_owned).to_vec();
        let mut rows: Vec<Option<Vec<Option<Bytes>>>> = vec![None; found.len()];
        for (at, partition) in self.partitions().iter().enumerate() {
            let places: Vec<usize> = (0..found.len())
                .filter(|place| found.get(*place).is_some_and(|f| f.partition == at))
                .collect();
            let wanted: Vec<_> = places
                .iter()
                .filter_map(|place| found.get(*place))
                .map(|found| (partition.keys().run(&found.cursor.id), names.clone()))
                .collect();
            for (place, row) in places.into_iter().zip(partition.run_fields(&wanted).await?) {
                if let Some(slot) = rows.get_mut(place) {
                    *slot = Some(row);
                }
            }
        }
        let row = |(found, row): (Found, Option<Vec<Option<Bytes>>>)| RunRow::of(found.cursor, row?);
        Ok(found.into_iter().zip(rows).filter_map(row).collect())
    }
}
