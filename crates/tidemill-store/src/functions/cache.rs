//! Looking answers up in a service's cache and storing them.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use super::{Function, FunctionCall, steps};
use crate::Error;
use crate::cache::{
    Answers, Asking, Bounds, Digest, Era, Found, Fullness, MAX_PER_CALL, Put, PutReply, ServiceCache, Stored,
};

pub(super) const GET: Function = Function {
    name: "tm1_cache_get",
    keys: &["values", "order", "totals", "fills", "fillers"],
    args: &["filler", "lease_ms", "by", "renewals", "lookups"],
};
pub(super) const PUT: Function = Function {
    name: "tm1_cache_put",
    keys: &["values", "order", "expiry", "totals", "fills", "fillers"],
    args: &["max_entries", "max_bytes", "by", "count"],
};
pub(super) const DROP: Function =
    Function { name: "tm1_cache_drop", keys: &["fills", "fillers"], args: &["filler", "count"] };
pub(super) const CLEAR: Function = Function {
    name: "tm1_cache_clear",
    keys: &["values", "order", "expiry", "totals", "fills", "fillers"],
    args: &["keep_ms"],
};

/// How long an era is remembered: longer than any call takes.
const ERA_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Times beyond it are for ever.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl ServiceCache {
    /// Looks calls up, and renews what the asker fills.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; asking again does no harm.
    pub async fn get(&self, asking: &Asking<'_>) -> Result<Answers, Error> {
        debug_assert!(asking.looks.len() <= MAX_PER_CALL && asking.renew.len() <= MAX_PER_CALL);
        let keys = self.keys();
        let mut call = FunctionCall::new(&GET, GET.keys.len());
        call.key(&keys.values()).key(&keys.order()).key(&keys.totals());
        call.key(&keys.fills()).key(&keys.fillers());
        call.arg(asking.filler).arg(millis(asking.lease).max(1)).arg(asking.order.as_str());
        call.arg(asking.renew.len()).arg(asking.looks.len());
        for digest in asking.renew {
            call.arg(&digest.0[..]);
        }
        for (digest, mode) in asking.looks {
            call.arg(&digest.0[..]).arg(mode.as_str());
        }
        answers(self.link().raw("looking calls up in the cache", call.command()).await?, asking.looks.len())
    }

    /// Stores values and ends their fills; room is made first, by what `bounds` says.
    ///
    /// # Errors
    /// Redis is not reachable or refuses (`maxmemory`); storing again does no harm.
    pub async fn put(&self, bounds: &Bounds, values: &[Put]) -> Result<PutReply, Error> {
        debug_assert!(values.len() <= MAX_PER_CALL);
        let mut call = self.on_everything(&PUT);
        call.arg(bounds.max_entries).arg(bounds.max_bytes).arg(bounds.order.as_str()).arg(values.len());
        for put in values {
            call.arg(&put.digest.0[..]).arg(&put.era.0);
            call.arg(millis(put.ttl)).arg(millis(put.stale)).arg(&put.value[..]);
        }
        let reply: Vec<i64> = self.link().query("storing answers in the cache", call.command()).await?;
        let (Some([entries, bytes, evicted]), Some(stored)) = (reply.first_chunk(), reply.get(3..)) else {
            return Err(Error::Corrupt("tm1_cache_put answered too little".to_owned()));
        };
        let count = |number: &i64| u64::try_from(*number).unwrap_or(0);
        let stored = stored.iter().map(|code| match code {
            1 => Stored::Yes,
            0 => Stored::NoRoom,
            _ => Stored::Outdated,
        });
        Ok(PutReply {
            fullness: Fullness { entries: count(entries), bytes: count(bytes) },
            evicted: count(evicted),
            stored: stored.collect(),
        })
    }

    /// Gives up the right to fill. Replies which were the filler's still.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the right then ends with its lease.
    pub async fn give_up(&self, filler: &str, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        let mut call = FunctionCall::new(&DROP, DROP.keys.len());
        call.key(&self.keys().fills()).key(&self.keys().fillers());
        call.arg(filler).arg(digests.len());
        for digest in digests {
            call.arg(&digest.0[..]);
        }
        self.link().query("giving fills of the cache up", call.command()).await.map(steps::flags)
    }

    /// Forgets every answer, those too that are being fetched now. Replies how many were stored.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; clearing again does no harm.
    pub async fn clear(&self) -> Result<u64, Error> {
        let mut call = self.on_everything(&CLEAR);
        call.arg(millis(ERA_KEPT));
        self.link().query("clearing the cache", call.command()).await
    }

    /// How full the cache is. Values whose time has passed count until the next one is stored.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn fullness(&self) -> Result<Fullness, Error> {
        let (mut entries, mut bytes) = (Cmd::new(), Cmd::new());
        entries.arg("HLEN").arg(self.keys().values());
        bytes.arg("HGET").arg(self.keys().totals()).arg("bytes");
        let what = "asking how full the cache is";
        let entries: u64 = self.link().query(what, &entries).await?;
        let bytes: Option<u64> = self.link().query(what, &bytes).await?;
        Ok(Fullness { entries, bytes: bytes.filter(|_| entries > 0).unwrap_or(0) })
    }

    fn on_everything(&self, function: &Function) -> FunctionCall {
        let keys = self.keys();
        let mut call = FunctionCall::new(function, 6);
        call.key(&keys.values()).key(&keys.order()).key(&keys.expiry());
        call.key(&keys.totals()).key(&keys.fills()).key(&keys.fillers());
        call
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(LONGEST).as_millis()).unwrap_or(u64::MAX)
}

fn answers(reply: Value, looks: usize) -> Result<Answers, Error> {
    let strange = || Error::Corrupt("tm1_cache_get answered something else than it promises".to_owned());
    let Value::Array(reply) = reply else { return Err(strange()) };
    let mut reply = reply.into_iter();
    let Some(Value::BulkString(era)) = reply.next() else { return Err(strange()) };
    let era = Era(String::from_utf8(era).map_err(|_| strange())?);
    let mut found = Vec::with_capacity(looks);
    while let Some(code) = reply.next() {
        let (Value::Int(code), Some(Value::Int(ms)), Some(Value::BulkString(value))) =
            (code, reply.next(), reply.next())
        else {
            return Err(strange());
        };
        let (time, value) = (Duration::from_millis(u64::try_from(ms).unwrap_or(0)), Bytes::from(value));
        found.push(match code {
            0 => Found::Nothing,
            1 => Found::Hit(value, time),
            2 => Found::Stale(value, time),
            3 => Found::Fill,
            4 => Found::Wait(time),
            5 => Found::Again,
            _ => return Err(strange()),
        });
    }
    if found.len() == looks { Ok(Answers { era, found }) } else { Err(strange()) }
}
