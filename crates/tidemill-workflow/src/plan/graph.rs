//! Who needs whom: circles, and what lies upstream of a step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::nearest::nearest;

/// Steps by index, with edges both ways.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) index: HashMap<Arc<str>, u32>,
    pub(super) needs: Vec<Vec<u32>>,
    pub(super) dependents: Vec<Vec<u32>>,
    /// How many of the steps are ordinary ones; those behind come at the end of a run, and nobody needs them.
    pub(super) main: u32,
}

impl Graph {
    pub(super) fn new(ids: Vec<Arc<str>>, main: u32) -> Self {
        let mut index = HashMap::with_capacity(ids.len());
        for (at, id) in (0..).zip(&ids) {
            index.entry(Arc::clone(id)).or_insert(at);
        }
        let (needs, dependents) = (vec![Vec::new(); ids.len()], vec![Vec::new(); ids.len()]);
        Self { ids, index, needs, dependents, main }
    }

    /// Adds that `step` needs `need`; both exist.
    pub(super) fn add(&mut self, step: u32, need: u32) {
        if let (Some(needs), Some(dependents)) =
            (self.needs.get_mut(step as usize), self.dependents.get_mut(need as usize))
        {
            needs.push(need);
            dependents.push(step);
        }
    }

    pub(super) fn needs_of(&self, step: u32) -> &[u32] {
        self.needs.get(step as usize).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn id(&self, step: u32) -> Arc<str> {
        self.ids.get(step as usize).cloned().unwrap_or_default()
    }

    /// The index of an ordinary step.
    pub(super) fn main_index(&self, id: &str) -> Option<u32> {
        self.index.get(id).copied().filter(|step| *step < self.main)
    }

    /// That there is no step of this id, with the nearest that there is.
    pub(super) fn unknown(&self, id: &str) -> String {
        let hint = nearest(id, self.ids.iter().take(self.main as usize).map(AsRef::as_ref))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        format!("there is no step `{id}`{hint}")
    }

    /// Circles, each as the steps on it; every step that is part of one, or behind one, is explained by these.
    pub(super) fn cycles(&self) -> Vec<Vec<u32>> {
        let mut cycles = Vec::new();
        let mut left = self.unordered(&HashSet::new());
        let mut broken = HashSet::new();
        while let Some(cycle) = self.cycle_in(&left) {
            broken.extend(cycle.iter().copied());
            cycles.push(cycle);
            left = self.unordered(&broken);
        }
        cycles
    }

    /// Steps that no order can reach, when `given` are taken as reached.
    fn unordered(&self, given: &HashSet<u32>) -> HashSet<u32> {
        let mut waits: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut left: HashSet<u32> = (0..).take(self.ids.len()).collect();
        let mut ready: Vec<u32> = (0..)
            .zip(&waits)
            .filter(|(step, waits)| **waits == 0 || given.contains(step))
            .map(|(step, _)| step)
            .collect();
        while let Some(step) = ready.pop() {
            if !left.remove(&step) {
                continue;
            }
            for dependent in self.dependents.get(step as usize).into_iter().flatten() {
                if let Some(waits) = waits.get_mut(*dependent as usize) {
                    *waits = waits.saturating_sub(1);
                    if *waits == 0 {
                        ready.push(*dependent);
                    }
                }
            }
        }
        left
    }

    /// A circle among `left`: each of them has a need among them, so walking needs comes back sometime.
    fn cycle_in(&self, left: &HashSet<u32>) -> Option<Vec<u32>> {
        let mut step = *left.iter().min()?;
        let mut walked = Vec::new();
        let mut place: HashMap<u32, usize> = HashMap::new();
        loop {
            if let Some(start) = place.get(&step) {
                return Some(walked.split_off(*start));
            }
            place.insert(step, walked.len());
            walked.push(step);
            step = *self.needs_of(step).iter().find(|need| left.contains(need))?;
        }
    }

    /// All steps that a step waits for, directly or not.
    pub(super) fn ancestors(&self, step: u32) -> HashSet<u32> {
        let mut found = HashSet::new();
        let mut open = self.needs_of(step).to_vec();
        while let Some(step) = open.pop() {
            if found.insert(step) {
                open.extend(self.needs_of(step));
            }
        }
        found
    }
}
