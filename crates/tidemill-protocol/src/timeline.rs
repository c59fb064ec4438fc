//! A run's audit as a history: who was in which state from when to when.
//!
//! Times are taken as they stand, but never backwards: a worker tells how long an attempt ran, so that an attempt may seem to begin
//! a moment before its step was ready.

use std::collections::HashMap;

use serde::Serialize;

use crate::audit::AuditRecord;
use crate::fold::RUN_SUBJECT;

/// A time in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The state.
    pub state: String,
    /// From when, in Unix milliseconds.
    pub from_ms: u64,
    /// Until when; `None` while it lasts, and for an end.
    pub to_ms: Option<u64>,
    /// The attempt; 0 for the run itself.
    pub attempt: u32,
    /// Who brought it into the state; `None` when that followed from another transition.
    pub who: Option<String>,
}

impl Span {
    /// How long it was, or has been by `now_ms`, in milliseconds.
    #[must_use]
    pub fn length_ms(&self, now_ms: u64) -> u64 {
        self.to_ms.unwrap_or(now_ms).saturating_sub(self.from_ms)
    }
}

/// The history of one step, of one item, or of the run itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Track {
    /// The step's id (`order`, `order[3]`), or `@` for the run itself.
    pub subject: String,
    /// Its states in their order; the last one is where it stands.
    pub spans: Vec<Span>,
}

impl Track {
    /// The state that it is in.
    #[must_use]
    pub fn state(&self) -> &str {
        self.spans.last().map_or("pending", |span| &span.state)
    }

    /// The attempt under way, or the last one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.spans.last().map_or(0, |span| span.attempt)
    }

    /// When it left where everything begins, in Unix milliseconds.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.from_ms)
    }

    /// When it entered the state that it is in.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.from_ms)
    }

    /// Enters a state that no record tells of yet, in the attempt that it is in.
    pub fn goes_on(&mut self, state: &str, at_ms: u64, who: Option<String>) {
        self.enter(state.to_owned(), at_ms, self.attempt(), who);
    }

    fn enter(&mut self, state: String, at_ms: u64, attempt: u32, who: Option<String>) {
        let from_ms = self.last_ms().max(at_ms);
        if let Some(last) = self.spans.last_mut() {
            last.to_ms = Some(from_ms);
        }
        self.spans.push(Span { state, from_ms, to_ms: None, attempt, who });
    }

    /// For how long it was in a state, all times together, in milliseconds.
    #[must_use]
    pub fn total_ms(&self, state: &str, now_ms: u64) -> u64 {
        self.spans.iter().filter(|span| span.state == state).map(|span| span.length_ms(now_ms)).sum()
    }
}

/// The histories of a run and of all that belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    tracks: Vec<Track>,
    places: HashMap<String, usize>,
}

impl Timeline {
    /// Takes in the next record.
    pub fn add(&mut self, record: AuditRecord) {
        let place = match self.places.get(&record.subject) {
            Some(place) => *place,
            None => {
                self.places.insert(record.subject.clone(), self.tracks.len());
                self.tracks.push(Track { subject: record.subject.clone(), spans: Vec::new() });
                self.tracks.len() - 1
            }
        };
        self.tracks[place].enter(record.to, record.at_ms, record.attempt, record.who);
    }

    /// The run's own history.
    #[must_use]
    pub fn run(&self) -> Option<&Track> {
        self.track(RUN_SUBJECT)
    }

    /// The history of a step or an item, or of the run itself; `None`: it never began.
    #[must_use]
    pub fn track(&self, subject: &str) -> Option<&Track> {
        self.places.get(subject).map(|place| &self.tracks[*place])
    }

    /// The histories of steps and items, in the order in which they began.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.subject != RUN_SUBJECT)
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, Timeline};
    use crate::audit::AuditRecord;

    fn timeline(lines: &[&str]) -> Timeline {
        let mut timeline = Timeline::default();
        for (seq, line) in (1..).zip(lines) {
            timeline.add(AuditRecord::parse(seq, line).unwrap());
        }
        timeline
    }

    #[test]
    fn a_step_that_was_tried_twice_has_all_its_times() {
        let timeline = timeline(&[
            "@ queued running 100 0 s1",
            "a pending ready 100 1 -",
            "a ready running 110 1 w1",
            "a running retrying 150 1 w1",
            "a retrying ready 250 2 -",
            "a ready running 260 2 w2",
            "a running succeeded 300 2 w2",
            "@ running succeeded 300 0 w2",
        ]);
        let a = timeline.tracks().next().unwrap();
        assert_eq!((a.state(), a.attempt(), a.began_ms(), a.last_ms()), ("succeeded", 2, 100, 300));
        let totals = ["ready", "running", "retrying", "parked"].map(|state| a.total_ms(state, 999));
        assert_eq!(totals, [20, 80, 100, 0]);
        assert_eq!(timeline.run().unwrap().total_ms("running", 999), 200);
        assert_eq!(timeline.tracks().count(), 1);
    }

    #[test]
    fn what_lasts_is_measured_until_now_and_no_time_runs_backwards() {
        let timeline = timeline(&[
            "@ queued running 100 0 s1",
            "a pending ready 100 1 -",
            "a ready running 98 1 w1",
            "a running parked 120 1 w1",
        ]);
        let a = timeline.tracks().next().unwrap();
        assert_eq!((a.spans[0].to_ms, a.spans[1].from_ms), (Some(100), 100));
        assert_eq!(a.total_ms("parked", 150), 30);
        let Span { state, to_ms, .. } = a.spans.last().unwrap();
        assert_eq!((&**state, *to_ms), ("parked", None));
    }
}
