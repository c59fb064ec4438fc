//! What the system says of a process: processor time and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time used by all threads of a process since its start.
pub(crate) fn used(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0_u64;
    let threads =
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("looking at process {pid}"))?;
    for thread in threads {
        // a thread may end between the listing and the look; what it used is then missing, and small
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds +=
            text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    /// Now.
    pub(crate) now: u64,
    /// At its most so far.
    pub(crate) peak: u64,
}

/// Resident memory.
pub(crate) fn resident(pid: u32) -> Result<Resident> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("looking at process {pid}"))?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    };
    let (now, peak) = (bytes("VmRSS"), bytes("VmHWM"));
    Ok(Resident {
        now: now.with_context(|| format!("process {pid} has no VmRSS"))?,
        peak: peak.with_context(|| format!("process {pid} has no VmHWM"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::{resident, used};

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(!used(pid).unwrap().is_zero());
        let memory = resident(pid).unwrap();
        assert!(memory.now > 100_000 && memory.peak >= memory.now, "{memory:?}");
    }
}
