//! A started process with all that it has started, and their end: in `Drop`, or by the guard when the test itself is killed.
//!
//! Every process leads a group of its own. A signal to the group reaches what a wrapper or a script has started, also
//! after the leader is gone; what has left the group is found as a descendant while the leader lives.

use std::{
    fs, io,
    io::Write as _,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::TestkitError;

/// A leader of a process group and its descendants.
#[derive(Debug)]
pub(crate) struct Family {
    leader: u32,
    /// Descendants seen before the leader was killed: nothing leads to them any more. A descriptor names a process for
    /// good, however often its id is given away.
    strays: Vec<OwnedFd>,
    /// Until the leader was waited for, its id belongs to nobody else.
    is_held: bool,
}

impl Family {
    /// Takes charge of a process that was started as the leader of a group.
    pub(crate) fn of(leader: u32) -> Result<Self, TestkitError> {
        tell_guard("began", leader).map_err(TestkitError::io("tell the guard of a process"))?;
        Ok(Self { leader, strays: Vec::new(), is_held: true })
    }

    /// Kills the group, as a crash of all of it would; who has left it lives on for the time being. Call it before the
    /// leader is waited for.
    pub(crate) fn kill(&mut self) {
        if self.is_held {
            self.strays.extend(descendants(self.leader));
            kill_group(self.leader);
        }
    }

    /// The leader has ended and was waited for just now: ends whom it left in its group.
    pub(crate) fn leader_ended(&mut self) {
        if std::mem::take(&mut self.is_held) {
            kill_group(self.leader);
            // a guard that is gone guards nothing
            tell_guard("ended", self.leader).ok();
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.kill();
        for stray in self.strays.drain(..) {
            // an error means that it has ended, which is what is wanted
            pidfd_send_signal(stray, Signal::KILL).ok();
        }
        if self.is_held {
            tell_guard("ended", self.leader).ok();
        }
    }
}

fn kill_group(leader: u32) {
    if let Some(leader) = pid_of(leader) {
        // an error means that all of it has ended, which is what is wanted
        kill_process_group(leader, Signal::KILL).ok();
    }
}

fn pid_of(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Children, their children and so on; empty on a system without `/proc`.
fn descendants(leader: u32) -> Vec<OwnedFd> {
    let (mut found, mut next) = (Vec::new(), vec![leader]);
    while let Some(parent) = next.pop() {
        for child in children(parent) {
            let pidfd = pid_of(child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // opened before the second look: the descriptor is of that child and of no later bearer of its id
            if children(parent).contains(&child) {
                found.extend(pidfd);
                next.push(child);
            }
        }
    }
    found
}

fn children(parent: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Reads `began <id>` and `ended <id>`. The end of its input is the end of the test's process, however that came: whoever
/// is left then is killed, with all descendants.
const GUARD: &str = r#"
trap '' INT TERM HUP
living=
while read -r what pid; do
  if [ "$what" = began ]; then living="$living $pid"; continue; fi
  left=
  for one in $living; do [ "$one" = "$pid" ] || left="$left $one"; done
  living=$left
done
under() {
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do echo "$child"; under "$child"; done
}
for pid in $living; do
  strays=$(under "$pid")
  kill -KILL "-$pid"
  for stray in $strays; do kill -KILL "$stray"; done
done
"#;

/// The guard of this process: a shell that outlives it by a moment.
static RUNNING: Mutex<Option<Child>> = Mutex::new(None);

fn tell_guard(what: &str, pid: u32) -> io::Result<()> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = match &mut *running {
        Some(guard) => guard,
        none => none.insert(start_guard()?),
    };
    let input = guard.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    input.write_all(format!("{what} {pid}\n").as_bytes())
}

fn start_guard() -> io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", GUARD]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // in a group of its own: what ends the test by its group, Ctrl-C first of all, must not end the guard
    shell.process_group(0).spawn()
}
