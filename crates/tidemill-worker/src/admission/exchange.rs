//! One exchange with Redis, put together from what waits and what has ended.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_store::{CallOutcome, CallReport, CallRequest, Correction, Exchange, Notice, TierUse};
use tokio::time::Instant;

use super::engine::{Asker, Waiting};
use super::lease::Ended;
use super::need::Need;
use super::snapshot::Snapshot;

/// What is held in a tier.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) template: Arc<str>,
    pub(super) count: u32,
    pub(super) has_cap: bool,
    /// When Redis was told of it last.
    pub(super) stated: Instant,
}

/// Every tier of an exchange, each once.
#[derive(Default)]
struct Tiers<'a> {
    index: HashMap<&'a str, usize>,
    uses: Vec<TierUse<'a>>,
    names: Vec<Arc<str>>,
}

impl<'a> Tiers<'a> {
    fn add(&mut self, name: &'a Arc<str>, template: &'a str, held: &HashMap<Arc<str>, Holding>) -> usize {
        *self.index.entry(name).or_insert_with(|| {
            self.uses.push(TierUse {
                name,
                template,
                held: held.get(name).map_or(0, |holding| holding.count),
            });
            self.names.push(Arc::clone(name));
            self.uses.len() - 1
        })
    }

    fn of(&mut self, need: &'a Need, held: &HashMap<Arc<str>, Holding>) -> Vec<usize> {
        need.tiers.iter().map(|tier| self.add(&tier.name, &tier.template, held)).collect()
    }
}

/// An exchange that borrows from what it is about.
pub(super) struct Draft<'a> {
    exchange: Exchange<'a>,
    names: Vec<Arc<str>>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(
        snapshot: &Snapshot,
        (asking, telling): (&'a [Waiting], &'a [Ended]),
        held: &'a HashMap<Arc<str>, Holding>,
        renews: bool,
    ) -> Self {
        let mut tiers = Tiers::default();
        // first: a tier follows the rules that the newest knowledge of it names
        let requests =
            asking.iter().map(|waiting| request(waiting, &tiers.of(&waiting.need, held))).collect();
        let reports =
            telling.iter().map(|ended| report(snapshot, ended, tiers.of(&ended.lease.need, held))).collect();
        if renews {
            for (name, holding) in held.iter().filter(|(_, holding)| holding.has_cap) {
                tiers.add(name, &holding.template, held);
            }
        }
        Self { exchange: Exchange { tiers: tiers.uses, reports, requests }, names: tiers.names }
    }

    pub(super) const fn exchange(&self) -> &Exchange<'a> {
        &self.exchange
    }

    /// The tiers by index.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.names.clone()
    }
}

fn request<'a>(waiting: &'a Waiting, tiers: &[usize]) -> CallRequest<'a> {
    let need = &*waiting.need;
    CallRequest {
        is_retry: need.is_retry,
        is_hedge: matches!(waiting.asker, Asker::Hedge(_)),
        patience: waiting.patience(),
        service: need.own_tier().map(|at| tiers[at]),
        id: &need.id,
        tiers: tiers.iter().copied().zip(need.tickets.iter().copied()).collect(),
        amounts: need.amounts.iter().map(|(unit, amount)| (&**unit, *amount)).collect(),
    }
}

fn report<'a>(snapshot: &Snapshot, ended: &'a Ended, tiers: Vec<usize>) -> CallReport<'a> {
    let need = &ended.lease.need;
    let limits = |at: usize, unit: &str| {
        snapshot.template(&need.tiers[at].template).is_some_and(|facts| {
            if unit == "requests" {
                facts.has_requests
            } else {
                facts.units.iter().any(|known| **known == *unit)
            }
        })
    };
    let mut corrections = Vec::new();
    for (unit, reserved) in &need.amounts {
        let used = match ended.outcome {
            CallOutcome::Unsent => Some(0.0),
            _ => ended.used.iter().find(|(known, _)| known == unit).map(|(_, used)| *used),
        };
        let Some(delta) = used.map(|used| used - reserved).filter(|delta| *delta != 0.0) else { continue };
        if ended.lease.granted_us == 0 {
            continue;
        }
        for (_, tier) in tiers.iter().enumerate().filter(|(at, _)| limits(*at, unit)) {
            corrections.push(Correction { tier: *tier, unit, delta, granted_us: ended.lease.granted_us });
        }
    }
    let told = need.told_tier().map(|at| (at, tiers[at]));
    let mut notices = Vec::new();
    if let Some((at, tier)) = told {
        for one in ended.observed.advertised.iter().filter(|one| limits(at, &one.unit)) {
            notices.push(Notice {
                tier,
                unit: &one.unit,
                limit: one.limit.unwrap_or(0.0),
                remaining: one.remaining,
                reset_in: one.reset_in,
                window: one.window,
            });
        }
    }
    CallReport {
        service: need.own_tier().map(|at| tiers[at]),
        outcome: ended.outcome,
        latency: ended.latency,
        epoch: ended.lease.epoch,
        probe: ended.lease.probe,
        pause: told.zip(ended.observed.retry_after).map(|((_, tier), wait)| (tier, wait)),
        tiers,
        corrections,
        notices,
    }
}
