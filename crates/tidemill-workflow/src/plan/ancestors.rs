//! Which steps lie upstream of which, for all steps at once: a bit for each pair.

use super::graph::Graph;

const BITS: usize = u64::BITS as usize;

/// A row of bits per step; the bits of what it waits for, directly or not, are set.
#[derive(Debug)]
pub(super) struct Ancestors {
    words: usize,
    rows: Vec<u64>,
}

impl Ancestors {
    /// Of a graph; `None` where steps need each other in a circle.
    pub(super) fn of(graph: &Graph) -> Option<Self> {
        let count = graph.ids.len();
        let words = count.div_ceil(BITS);
        let mut found = Self { words, rows: vec![0; words * count] };
        let mut waits: Vec<usize> = graph.needs.iter().map(Vec::len).collect();
        let mut ready: Vec<u32> =
            (0..).zip(&waits).filter(|(_, waits)| **waits == 0).map(|(step, _)| step).collect();
        let mut ordered = 0;
        while let Some(step) = ready.pop() {
            ordered += 1;
            for need in graph.needs_of(step) {
                found.include(step as usize, *need as usize);
            }
            for dependent in graph.dependents.get(step as usize).into_iter().flatten() {
                if let Some(waits) = waits.get_mut(*dependent as usize) {
                    *waits = waits.saturating_sub(1);
                    if *waits == 0 {
                        ready.push(*dependent);
                    }
                }
            }
        }
        (ordered == count).then_some(found)
    }

    /// Adds a need, and what it waits for itself, to a step's row.
    fn include(&mut self, step: usize, need: usize) {
        let (to, from) = (step * self.words, need * self.words);
        for word in 0..self.words {
            let bits = self.rows.get(from + word).copied().unwrap_or(0);
            if let Some(row) = self.rows.get_mut(to + word) {
                *row |= bits;
            }
        }
        if let Some(row) = self.rows.get_mut(to + need / BITS) {
            *row |= 1 << (need % BITS);
        }
    }

    fn row(&self, step: u32) -> &[u64] {
        let from = step as usize * self.words;
        self.rows.get(from..from + self.words).unwrap_or_default()
    }

    /// Whether `step` waits for `other`, directly or not.
    pub(super) fn contains(&self, step: u32, other: u32) -> bool {
        self.row(step).get(other as usize / BITS).is_some_and(|word| word >> (other as usize % BITS) & 1 == 1)
    }

    /// All that a step waits for, in their order.
    pub(super) fn steps(&self, step: u32) -> impl Iterator<Item = u32> {
        let words = (0_u32..).step_by(BITS).zip(self.row(step));
        words.flat_map(|(first, word)| {
            (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }
}
