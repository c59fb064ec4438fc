//! The function library `tidemill.lua`: its text, and loading it where it is missing or older.
//!
//! Function names are global in Redis and carry the protocol version (`tm1_…`), so programs of another protocol version have
//! their own beside ours. Within one version the library only grows: a newer text is a superset, so whoever finds a newer one
//! loaded leaves it, and whoever finds an older one replaces it.

use redis::{Cmd, RedisError, Value};

use crate::error::{Error, Fault};
use crate::wire::Wire;

/// The version of this text. Raise it with every change to a file in `lua/`.
pub const LIBRARY_VERSION: u32 = 1;

/// The library's name in `FUNCTION LIST`.
pub const LIBRARY_NAME: &str = "tidemill1";

const HEAD: &str = "#!lua name=tidemill1\n";

const TEXT: &str = concat!(
    include_str!("../lua/transitions.lua"),
    include_str!("../lua/lib.lua"),
    include_str!("../lua/line.lua"),
    // Lua takes 200 locals in one function: those of the two largest subjects end with their blocks, before the others' begin
    "local caches, services, definitions = {}, {}, {}\n",
    "do\n",
    include_str!("../lua/move_version.lua"),
    include_str!("../lua/switch_mode.lua"),
    "definitions.move_version, definitions.switch_mode = move_version, switch_mode\n",
    "end\n",
    "do\n",
    include_str!("../lua/cache_entries.lua"),
    include_str!("../lua/cache_get.lua"),
    include_str!("../lua/cache_put.lua"),
    include_str!("../lua/cache_drop.lua"),
    include_str!("../lua/cache_clear.lua"),
    "caches.get, caches.put, caches.drop, caches.clear = cache_get, cache_put, cache_drop, cache_clear\n",
    "end\n",
    "do\n",
    include_str!("../lua/tier.lua"),
    include_str!("../lua/limit.lua"),
    include_str!("../lua/breaker.lua"),
    include_str!("../lua/admit.lua"),
    include_str!("../lua/forecast.lua"),
    include_str!("../lua/define.lua"),
    include_str!("../lua/control.lua"),
    "services.admit, services.forecast, services.define, services.control = admit, forecast, define, control\n",
    "end\n",
    include_str!("../lua/run.lua"),
    include_str!("../lua/index.lua"),
    include_str!("../lua/start.lua"),
    "local grouping = {}\n",
    "do\n",
    include_str!("../lua/group_enter.lua"),
    include_str!("../lua/group_leave.lua"),
    include_str!("../lua/group_refuse.lua"),
    include_str!("../lua/spend.lua"),
    "grouping.spend = spend\n",
    "grouping.enter, grouping.leave, grouping.refuse = group_enter, group_leave, group_refuse\n",
    "end\n",
    include_str!("../lua/settle_step.lua"),
    include_str!("../lua/finish.lua"),
    include_str!("../lua/end_run.lua"),
    include_str!("../lua/expand.lua"),
    include_str!("../lua/settle_item.lua"),
    include_str!("../lua/complete.lua"),
    include_str!("../lua/bury.lua"),
    include_str!("../lua/aside.lua"),
    include_str!("../lua/defer.lua"),
    include_str!("../lua/promote.lua"),
    include_str!("../lua/park.lua"),
    include_str!("../lua/call_up.lua"),
    include_str!("../lua/release.lua"),
    include_str!("../lua/reclaim.lua"),
    include_str!("../lua/beat.lua"),
    include_str!("../lua/forget.lua"),
    include_str!("../lua/enqueue.lua"),
    include_str!("../lua/accept.lua"),
    include_str!("../lua/cancel.lua"),
    include_str!("../lua/fire.lua"),
    include_str!("../lua/replay.lua"),
    include_str!("../lua/repair.lua"),
    include_str!("../lua/mend.lua"),
    "local operating = {}\n",
    "do\n",
    include_str!("../lua/give.lua"),
    include_str!("../lua/pause.lua"),
    "operating.give, operating.pause = give, pause\n",
    "end\n",
    "local waits = {}\n",
    "do\n",
    include_str!("../lua/mail.lua"),
    include_str!("../lua/wait.lua"),
    include_str!("../lua/deliver.lua"),
    include_str!("../lua/signal.lua"),
    include_str!("../lua/close.lua"),
    "waits.wait, waits.deliver, waits.signal, waits.read_mail, waits.close = wait, deliver, signal, read_mail, close\n",
    "end\n",
    include_str!("../lua/register.lua"),
);

/// The library as `FUNCTION LOAD` takes it.
#[must_use]
pub fn text() -> String {
    format!("{HEAD}local TIDEMILL_LIBRARY_VERSION = {LIBRARY_VERSION}\n{TEXT}")
}

/// Loads the library unless the same or a newer one is there.
pub(crate) async fn ensure(wire: &mut Wire) -> Result<(), Error> {
    let asking = |error| Error::redis("asking for the function library's version", error);
    let version = {
        let mut ask = Cmd::new();
        ask.arg("FCALL_RO").arg("tm1_version").arg(0);
        wire.on_every_primary(ask).await
    };
    match version.and_then(Value::extract_error) {
        Ok(Value::Int(loaded)) if loaded >= i64::from(LIBRARY_VERSION) => return Ok(()),
        Ok(Value::Array(each))
            if each.iter().all(|v| matches!(v, Value::Int(n) if *n >= i64::from(LIBRARY_VERSION))) =>
        {
            return Ok(());
        }
        Ok(_) => {}
        Err(error) if Fault::of(&error) == Fault::NoFunction => {}
        Err(error) => return Err(asking(error)),
    }
    let mut load = Cmd::new();
    load.arg("FUNCTION").arg("LOAD").arg("REPLACE").arg(text());
    wire.on_every_primary(load).await.and_then(Value::extract_error).map_err(refused)?;
    tracing::info!(version = LIBRARY_VERSION, "function library loaded");
    Ok(())
}

fn refused(error: RedisError) -> Error {
    if Fault::of(&error) == Fault::NoPermission {
        return Error::Unsuitable(format!(
            "the function library {LIBRARY_NAME} version {LIBRARY_VERSION} is not loaded and this user may not load it ({error}); \
             start a scheduler first, or run `tidemill library load` as a user with FUNCTION LOAD"
        ));
    }
    Error::redis("loading the function library", error)
}
