//! The pool's execution mode for people and programs that operate it: as it stands, switched, rolled back, and how runs went under
//! each. The command line and the HTTP API both stand on this.

use serde::Serialize;
use std::collections::BTreeMap;
use tidemill_protocol::ExecutionMode;
use tidemill_store::{ModeChange, ModeMove, ModeMoved, Performance, PoolMode, Store};
use utoipa::ToSchema;

use crate::refusal::{Code, Refusal, nearest};

/// Longest reason kept, in characters.
const REASON_MAX: usize = 1_000;
/// Switches shown with the metrics.
const HISTORY: usize = 100;

/// The pool's execution mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModeView {
    /// The mode of runs that start now: `classic`, `state_machine`, `optimized` or `hybrid`. A workflow or a caller may say otherwise for
    /// its own runs, and runs under way keep the mode with which they began.
    pub mode: &'static str,
    /// The mode before, to which it can be rolled back.
    pub before: Option<&'static str>,
    /// How often it was switched. Pass it with a switch: it counts only while nobody else has switched since.
    pub version: u64,
    /// Since when, in Unix milliseconds; absent before the first switch.
    pub since_ms: Option<u64>,
    /// Why it was switched.
    pub reason: Option<String>,
    /// Who switched it.
    pub by: Option<String>,
}

/// What came of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SwitchedMode {
    /// The mode before.
    pub from: &'static str,
    /// The mode now.
    pub to: &'static str,
    /// Whether anything is different now.
    pub changed: bool,
    /// How often it was switched.
    pub version: u64,
}

/// One switch of the mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModeChangeView {
    /// The mode before.
    pub from: &'static str,
    /// The mode since.
    pub to: &'static str,
    /// When, in Unix milliseconds.
    pub timestamp: u64,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// `switch`, `rollback` or `settings`.
    pub kind: String,
    /// The number of this switch, from 1.
    pub version: u64,
}

/// How long the runs of a mode took, from start to end, in milliseconds; percentiles within 2 %. Runs that were cancelled or ran out of
/// time are not among them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PerformanceView {
    /// All of them together.
    pub total: u64,
    /// How many have ended.
    pub count: u64,
    /// The mean.
    pub average: f64,
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
}

/// Everything about modes in one document.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModeMetrics {
    /// The mode of runs that start now.
    pub current_mode: &'static str,
    /// How often it was switched.
    pub mode_changes: u64,
    /// Runs started, by mode.
    pub executions_by_mode: BTreeMap<&'static str, u64>,
    /// How long they took, by mode.
    pub performance_by_mode: BTreeMap<&'static str, PerformanceView>,
    /// The last hundred switches, the newest first.
    pub mode_history: Vec<ModeChangeView>,
}

/// Who switches, why, and by what he saw.
#[derive(Debug, Clone, Copy)]
pub struct Switching<'a> {
    /// Who, for the history.
    pub who: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The [`ModeView::version`] that was seen; absent: as it stands now.
    pub version: Option<u64>,
}

/// The mode of a word.
///
/// # Errors
/// There is none; says which there are.
pub fn mode_of(word: &str) -> Result<ExecutionMode, Refusal> {
    word.parse::<ExecutionMode>().map_err(|error| {
        let near = nearest(word, ExecutionMode::ALL.into_iter().map(ExecutionMode::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        Refusal::new(Code::InvalidMember, format!("{error}{hint}"))
    })
}

/// The mode as it stands.
///
/// # Errors
/// Redis is not available.
pub async fn current(store: &Store) -> Result<ModeView, Refusal> {
    let PoolMode { mode, before, version, since_ms, reason, by } = store.home().pool_mode().await?;
    let before = before.map(ExecutionMode::as_str);
    Ok(ModeView { mode: mode.as_str(), before, version, since_ms, reason, by })
}

/// Switches the mode; runs that start from now on follow it.
///
/// # Errors
/// No reason is given, somebody else has switched it since, or Redis is not available.
pub async fn switch(
    store: &Store,
    switching: Switching<'_>,
    to: ExecutionMode,
) -> Result<SwitchedMode, Refusal> {
    make(store, switching, ModeMove::Switch(to)).await
}

/// Switches back to the mode before the last switch.
///
/// # Errors
/// As [`switch`]; or it was never switched.
pub async fn roll_back(store: &Store, switching: Switching<'_>) -> Result<SwitchedMode, Refusal> {
    make(store, switching, ModeMove::Rollback).await
}

async fn make(store: &Store, switching: Switching<'_>, wanted: ModeMove) -> Result<SwitchedMode, Refusal> {
    let reason: String = switching.reason.trim().chars().take(REASON_MAX).collect();
    if reason.is_empty() {
        let detail = "a switch of the mode wants a reason, for who reads the history later";
        return Err(Refusal::new(Code::MissingMember, detail));
    }
    let seen = match switching.version {
        Some(version) => version,
        None => store.home().pool_mode().await?.version,
    };
    match store.home().switch_mode((switching.who, &reason), wanted, Some(seen)).await? {
        ModeMoved::Switched { from, to, version } => {
            Ok(SwitchedMode { from: from.as_str(), to: to.as_str(), changed: true, version })
        }
        ModeMoved::Unchanged { mode, version } => {
            Ok(SwitchedMode { from: mode.as_str(), to: mode.as_str(), changed: false, version })
        }
        ModeMoved::Conflict { mode, version } => Err(Refusal::new(
            Code::Conflict,
            format!(
                "somebody else has switched the mode since: it is {mode} now, switch number {version} (you saw {seen}); look why, \
                 and switch again if it is still wanted"
            ),
        )),
        ModeMoved::NothingBefore => {
            let detail = "the mode was never switched, so there is none to go back to";
            Err(Refusal::new(Code::NothingToRollBack, detail))
        }
    }
}

/// What happened to the mode, the newest first.
///
/// # Errors
/// Redis is not available.
pub async fn history(store: &Store, limit: usize) -> Result<Vec<ModeChangeView>, Refusal> {
    Ok(store.home().mode_changes(limit).await?.into_iter().map(view).collect())
}

/// The mode, its history, and how runs went under each.
///
/// # Errors
/// Redis is not available.
pub async fn metrics(store: &Store) -> Result<ModeMetrics, Refusal> {
    let home = store.home();
    let (mode, figures) = (home.pool_mode().await?, home.mode_figures().await?);
    let performance = |(mode, performance): (&'static str, Performance)| {
        let Performance { total, count, average, p50, p99 } = performance;
        (mode, PerformanceView { total, count, average, p50, p99 })
    };
    Ok(ModeMetrics {
        current_mode: mode.mode.as_str(),
        mode_changes: mode.version,
        executions_by_mode: figures.executions,
        performance_by_mode: figures.performance.into_iter().map(performance).collect(),
        mode_history: history(store, HISTORY).await?,
    })
}

fn view(change: ModeChange) -> ModeChangeView {
    let ModeChange { from, to, timestamp, reason, by, kind, version } = change;
    ModeChangeView { from: from.as_str(), to: to.as_str(), timestamp, reason, by, kind, version }
}
