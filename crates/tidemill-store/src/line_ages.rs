//! How long the jobs at the heads of lines have waited.

use redis::{FromRedisValue, Pipeline, Value};

use crate::lines::split_place;
use crate::{Error, Partition};

/// The width of a priority's scores in a line.
const BAND: f64 = 1e12;
const BANDS: u8 = 10;

impl Partition {
    /// Since when the job that has waited the longest waits in each of these lines, in Unix milliseconds: the oldest of those
    /// that stand first in their priority. `None` where nothing waits, or it is not known since when.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn oldest_in_lines(&self, tiers: &[String]) -> Result<Vec<Option<u64>>, Error> {
        if tiers.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(tiers.len() * usize::from(BANDS));
        ask.ignore_errors();
        for tier in tiers {
            for band in 0..BANDS {
                let (from, to) = (f64::from(band) * BAND, f64::from(band + 1) * BAND);
                ask.cmd("ZRANGEBYSCORE").arg(self.keys().line(tier)).arg(from).arg(format!("({to}"));
                ask.arg("LIMIT").arg(0).arg(1);
            }
        }
        let replies: Vec<Value> = self.link().pipeline("reading the heads of lines", &ask).await?;
        let heads: Vec<(usize, String)> = replies
            .into_iter()
            .enumerate()
            .filter_map(|(at, reply)| {
                let place = Vec::<String>::from_redis_value(reply).ok()?.pop()?;
                Some((at / usize::from(BANDS), place))
            })
            .collect();
        let mut oldest = vec![None; tiers.len()];
        if heads.is_empty() {
            return Ok(oldest);
        }
        let mut ask = Pipeline::with_capacity(heads.len());
        ask.ignore_errors();
        for (_, place) in &heads {
            let (queue, member) = split_place(place);
            ask.cmd("HGET").arg(self.keys().deferred(queue)).arg(member);
        }
        let fields: Vec<Value> = self.link().pipeline("asking since when work waits", &ask).await?;
        for ((at, _), packed) in heads.into_iter().zip(fields) {
            let packed = Vec::<u8>::from_redis_value(packed).unwrap_or_default();
            let since = crate::inspect::noted(&packed, b"_parked_ms").and_then(|since| since.parse().ok());
            if let (Some(since), Some(slot)) = (since, oldest.get_mut(at)) {
                *slot = Some(slot.map_or(since, |known: u64| known.min(since)));
            }
        }
        Ok(oldest)
    }
}
