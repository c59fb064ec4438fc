//! What Redis answered, and what becomes of the flights that waited for it.

use std::time::Duration;

use rand::Rng;
use tidemill_store::cache::{Answers, Digest, Era, Found, Mode, PutReply, Stored};
use tokio::time::Instant;

use super::calls::{Lost, Outcome};
use super::flights::{Flights, Single, Stage, UnderWay};
use super::{Timing, Told};

impl Flights {
    pub(super) fn done(&mut self, outcome: Outcome, now: Instant) {
        let Some(UnderWay { looks, singles, puts }) = self.under_way.take() else { return };
        if let Some(stored) = outcome.stored {
            self.stored(&puts, stored);
        }
        match outcome.found {
            None => {}
            Some(Ok(answers)) => {
                if self.not_before.take().is_some() {
                    tracing::info!(service = %self.service, "the cache answers again");
                }
                self.found(&looks, singles, answers);
            }
            Some(Err(lost)) => self.unanswered(looks, singles, &lost, now),
        }
    }

    fn stored(&mut self, puts: &[Digest], stored: Result<PutReply, Lost>) {
        for digest in puts {
            if self.flights.get(digest).is_some_and(|flight| matches!(flight.stage, Stage::Storing(_))) {
                self.flights.remove(digest);
            }
        }
        let metrics = &self.around.metrics;
        match stored {
            Ok(reply) => {
                let count = |wanted| reply.stored.iter().filter(|stored| **stored == wanted).count();
                metrics.stored(&self.service, "stored", count(Stored::Yes));
                metrics.stored(&self.service, "no_room", count(Stored::NoRoom));
                metrics.stored(&self.service, "outdated", count(Stored::Outdated));
                metrics.filled(&self.service, &reply);
            }
            Err(lost) => {
                metrics.stored(&self.service, "lost", puts.len());
                let full = lost.is_out_of_memory();
                tracing::debug!(service = %self.service, answers = puts.len(), full, %lost, "answers are not kept");
            }
        }
    }

    fn found(&mut self, looks: &[Digest], singles: Vec<(Digest, Single)>, answers: Answers) {
        let Answers { era, found } = answers;
        let mut found = found.into_iter();
        for (digest, found) in looks.iter().zip(found.by_ref()) {
            self.land(*digest, found, &era);
        }
        for ((digest, single), found) in singles.into_iter().zip(found) {
            match (single, found) {
                (single, Found::Again) => self.singles.push_back((digest, single)),
                (Single::Kept(seat), found) => drop(seat.send(found)),
                (Single::Ask(_, seat), Found::Hit(value, _)) => {
                    drop(seat.send(Told::Stored { value, waited: false }));
                }
                (Single::Ask(rules, seat), _) => {
                    self.call_alone(digest, (rules, seat), Some(era.clone()), "miss");
                }
            }
        }
    }

    /// What Redis said of one flight.
    fn land(&mut self, digest: Digest, found: Found, era: &Era) {
        let Some(flight) = self.flights.get_mut(&digest) else { return };
        let Stage::Asked { paused } = flight.stage else { return };
        match found {
            Found::Hit(value, _) | Found::Stale(value, _) => {
                for seat in flight.seats.drain(..) {
                    drop(seat.send(Told::Stored { value: value.clone(), waited: paused.is_some() }));
                }
                self.flights.remove(&digest);
            }
            Found::Fill => self.call_here(digest, (true, Some(era.clone())), "miss"),
            Found::Nothing => self.call_here(digest, (false, Some(era.clone())), "miss"),
            Found::Again => self.looks.push_back((digest, Mode::Fresh)),
            Found::Wait(left) => {
                let Timing { shortest_pause, longest_pause, .. } = self.around.timing;
                let pause = paused.map_or(shortest_pause, |paused| (paused * 3 / 2).min(longest_pause));
                flight.stage = Stage::Elsewhere { paused: pause };
                // workers that began to wait together do not ask together
                let pause = pause.mul_f64(rand::rng().random_range(0.75..=1.0));
                let pause = pause.min(left + Duration::from_millis(1));
                self.polls.insert((Instant::now() + pause, digest));
            }
        }
    }

    /// Redis is not asked for a while, and nobody waits for it: each call is made, and shared in this worker alone.
    fn unanswered(&mut self, looks: Vec<Digest>, singles: Vec<(Digest, Single)>, lost: &Lost, now: Instant) {
        if self.not_before.is_none() {
            tracing::warn!(service = %self.service, error = %lost, "the cache does not answer; calls are made without it");
        }
        self.not_before = Some(now + self.around.timing.respite);
        let polls = std::mem::take(&mut self.polls).into_iter().map(|(_, digest)| digest);
        let queued = std::mem::take(&mut self.looks).into_iter().map(|(digest, _)| digest);
        for digest in looks.into_iter().chain(queued).chain(polls) {
            self.call_here(digest, (false, None), "unavailable");
        }
        for (digest, single) in singles.into_iter().chain(std::mem::take(&mut self.singles)) {
            match single {
                Single::Kept(seat) => drop(seat.send(Found::Nothing)),
                Single::Ask(rules, seat) => self.call_alone(digest, (rules, seat), None, "unavailable"),
            }
        }
        let puts: Vec<Digest> = self.puts.drain(..).map(|put| put.digest).collect();
        self.put_bytes = 0;
        // leases end by themselves
        self.drops.clear();
        if !puts.is_empty() {
            self.around.metrics.stored(&self.service, "lost", puts.len());
        }
        self.flights
            .retain(|digest, flight| !(matches!(flight.stage, Stage::Storing(_)) && puts.contains(digest)));
    }
}
