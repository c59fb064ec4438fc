//! Who needs whom: circles, and what lies upstream of a step.

use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ancestors::Ancestors;
use crate::nearest::nearest;

/// Most circles that are told.
const MOST_CIRCLES: usize = 20;
/// So often a name that does not exist is compared with all that do.
const MOST_HINTS: u32 = 100;

/// Steps by index, with edges both ways.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) index: HashMap<Arc<str>, u32>,
    pub(super) needs: Vec<Vec<u32>>,
    pub(super) dependents: Vec<Vec<u32>>,
    /// How many of the steps are ordinary ones; those behind come at the end of a run, and nobody needs them.
    pub(super) main: u32,
    /// How often names were asked for to compare with.
    hints: Cell<u32>,
    /// What lies upstream of what, found when first asked for; there is no answer while there are circles.
    known: OnceCell<Option<Ancestors>>,
}

impl Graph {
    pub(super) fn new(ids: Vec<Arc<str>>, main: u32) -> Self {
        let mut index = HashMap::with_capacity(ids.len());
        for (at, id) in (0..).zip(&ids) {
            index.entry(Arc::clone(id)).or_insert(at);
        }
        let (needs, dependents) = (vec![Vec::new(); ids.len()], vec![Vec::new(); ids.len()]);
        Self { ids, index, needs, dependents, main, hints: Cell::new(0), known: OnceCell::new() }
    }

    /// Adds that `step` needs `need`; both exist.
    pub(super) fn add(&mut self, step: u32, need: u32) {
        self.known.take();
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

    /// The ids of ordinary steps, for suggestions; none when they were asked for often: a definition in which so much is wrong
    /// would take minutes to compare.
    pub(super) fn names(&self) -> &[Arc<str>] {
        let asked = self.hints.get();
        self.hints.set(asked.saturating_add(1));
        let all = self.ids.get(..self.main as usize).unwrap_or(&self.ids);
        if asked < MOST_HINTS { all } else { &[] }
    }

    /// That there is no step of this id, with the nearest that there is.
    pub(super) fn unknown(&self, id: &str) -> String {
        let hint = nearest(id, self.names().iter().map(AsRef::as_ref))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        format!("there is no step `{id}`{hint}")
    }

    /// Circles, each as the steps on it; every step that is part of one, or behind one, is explained by these, as long as they
    /// are few.
    pub(super) fn cycles(&self) -> Vec<Vec<u32>> {
        let mut cycles = Vec::new();
        let mut left = self.unordered(&HashSet::new());
        let mut broken = HashSet::new();
        while let Some(cycle) = self.cycle_in(&left) {
            broken.extend(cycle.iter().copied());
            cycles.push(cycle);
            if cycles.len() == MOST_CIRCLES {
                break;
            }
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

    /// All steps that a step waits for, directly or not, in their order.
    pub(super) fn ancestors(&self, step: u32) -> Vec<u32> {
        match self.known() {
            Some(known) => known.steps(step).collect(),
            None => self.walked(step),
        }
    }

    /// Whether a step waits for another, directly or not.
    pub(super) fn waits_for(&self, step: u32, other: u32) -> bool {
        self.needs_of(step).contains(&other)
            || match self.known() {
                Some(known) => known.contains(step, other),
                None => self.walked(step).contains(&other),
            }
    }

    /// The same while edges are still added.
    pub(super) fn waits_so_far(&self, step: u32, other: u32) -> bool {
        self.walked(step).contains(&other)
    }

    fn known(&self) -> Option<&Ancestors> {
        self.known.get_or_init(|| Ancestors::of(self)).as_ref()
    }

    fn walked(&self, step: u32) -> Vec<u32> {
        let mut seen = vec![false; self.ids.len()];
        let mut found = Vec::new();
        let mut open = self.needs_of(step).to_vec();
        while let Some(step) = open.pop() {
            if let Some(seen) = seen.get_mut(step as usize)
                && !std::mem::replace(seen, true)
            {
                found.push(step);
                open.extend(self.needs_of(step));
            }
        }
        found.sort_unstable();
        found
    }
}
