//! Signals to processes that this kit started, by their id.

use std::io;

use rustix::process::{Pid, Signal, kill_process};

use crate::TestkitError;

/// Sends `signal` to the process; one that is gone already is an error that names it.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<(), TestkitError> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let sent = match target {
        Some(target) => kill_process(target, signal).map_err(io::Error::from),
        None => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    sent.map_err(TestkitError::io(format!("send {signal:?} to process {pid}")))
}
