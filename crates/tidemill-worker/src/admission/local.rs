//! While Redis cannot be asked: services that allow it go on with a share of their limit, in this process. It is never silent: such
//! grants are counted as `local`, and the log says when they begin.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tidemill_policy::service::RedisLoss;
use tokio::time::Instant;

use super::need::Need;
use super::snapshot::Snapshot;

/// Redis must have been away for so long.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Limiters by service, made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Local {
    limiters: HashMap<String, Option<DefaultDirectRateLimiter>>,
}

impl Local {
    /// Whether a call goes although Redis was not asked.
    pub(super) fn lets_go(&mut self, snapshot: &Snapshot, need: &Need, since: Instant, now: Instant) -> bool {
        let Some(service) = &need.service else { return false };
        let RedisLoss::LocalShare(share) = service.definition.redis_loss else { return false };
        if now.duration_since(since) < LOST_AFTER {
            return false;
        }
        let limiter = self.limiters.entry(service.name.to_string()).or_insert_with(|| {
            tracing::warn!(
                service = &*service.name,
                share,
                "redis is away: the service goes on with a share of its limit"
            );
            let per_second =
                need.tiers.iter().filter_map(|tier| snapshot.template(&tier.template)?.per_second);
            let per_second = per_second.fold(f64::INFINITY, f64::min) * share;
            // none, or so few that no clock tells
            let period =
                Duration::try_from_secs_f64(1.0 / per_second).ok().filter(|_| per_second.is_finite())?;
            Quota::with_period(period).map(|quota| RateLimiter::direct(quota.allow_burst(NonZeroU32::MIN)))
        });
        // without a limit of requests there is no share of one: it stays closed
        limiter.as_ref().is_some_and(|limiter| limiter.check().is_ok())
    }
}
