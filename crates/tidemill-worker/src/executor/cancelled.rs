//! What was cancelled lately. A job and a run may have the same id, so the two are kept apart.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long a cancellation is remembered: so long may a job that was claimed before it still come back.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// More than this are not remembered; the oldest go first. (Parts of ended runs are recognised by their run, too.)
const MOST: usize = 100_000;

#[derive(Debug, Default)]
struct Ids {
    known: HashSet<Arc<str>>,
    by_age: VecDeque<(Instant, Arc<str>)>,
}

impl Ids {
    fn insert(&mut self, id: &str, now: Instant) -> bool {
        let is_old = |at: &Instant| now.duration_since(*at) >= KEPT;
        while self.by_age.len() >= MOST || self.by_age.front().is_some_and(|(at, _)| is_old(at)) {
            let Some((_, oldest)) = self.by_age.pop_front() else { break };
            self.known.remove(&oldest);
        }
        if self.known.contains(id) {
            return false;
        }
        let id: Arc<str> = id.into();
        self.by_age.push_back((now, Arc::clone(&id)));
        self.known.insert(id)
    }
}

/// Ids of jobs and runs that were cancelled.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    jobs: Ids,
    runs: Ids,
}

impl Cancelled {
    /// Takes in what a beat told: `<id>` a job, `run <id>` a run. Replies what is new of it.
    pub(super) fn insert(&mut self, told: Vec<String>, now: Instant) -> Self {
        let mut new = Self::default();
        for one in told {
            // no id has a space
            let (ids, news, id) = match one.strip_prefix("run ") {
                Some(id) => (&mut self.runs, &mut new.runs, id),
                None => (&mut self.jobs, &mut new.jobs, &*one),
            };
            if ids.insert(id, now) {
                news.insert(id, now);
            }
        }
        new
    }

    pub(super) fn has(&self, is_run: bool, id: &str) -> bool {
        let known = if is_run { &self.runs.known } else { &self.jobs.known };
        !known.is_empty() && known.contains(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.known.is_empty() && self.runs.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cancelled, KEPT, MOST};
    use tokio::time::Instant;

    #[test]
    fn a_run_and_a_job_of_the_same_id_are_two() {
        let (mut cancelled, now) = (Cancelled::default(), Instant::now());
        let new = cancelled.insert(vec!["run 1732-0".to_owned()], now);
        assert!(new.has(true, "1732-0") && !new.has(false, "1732-0"));
        assert!(cancelled.has(true, "1732-0") && !cancelled.has(false, "1732-0"));
        assert!(cancelled.insert(vec!["run 1732-0".to_owned()], now).is_empty(), "told again");
        assert!(cancelled.insert(vec!["1732-0".to_owned()], now).has(false, "1732-0"));
    }

    #[test]
    fn the_oldest_are_forgotten_by_count_and_by_age() {
        let (mut cancelled, now) = (Cancelled::default(), Instant::now());
        cancelled.insert((0..=MOST).map(|n| format!("j{n}")).collect(), now);
        assert!(!cancelled.has(false, "j0") && cancelled.has(false, "j1"));
        cancelled.insert(vec!["late".to_owned()], now + KEPT);
        assert!(!cancelled.has(false, "j1") && cancelled.has(false, "late"));
    }
}
