//! The thread that starts programs and clears up after them.
//!
//! Starting a program blocks until it runs, removing its folder blocks too, and a program is told to die with the *thread*
//! that started it: so one thread, which lives as long as the tools do, does all three.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::oneshot;

use super::settings::Settings;

/// A program to start.
pub(crate) struct Launch {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) limits: Limits,
}

/// Bounds that the kernel keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits([(Resource, u64); 5]);

impl Limits {
    pub(crate) const fn new(settings: &Settings) -> Self {
        Self([
            (Resource::Core, 0),
            (Resource::Data, settings.max_memory_bytes),
            (Resource::Cpu, settings.max_cpu_seconds),
            (Resource::Fsize, settings.max_file_bytes),
            (Resource::Nofile, settings.max_open_files),
        ])
    }

    /// Never above what the worker itself may have: raising a hard limit would be refused.
    fn clamped(self) -> Self {
        Self(self.0.map(|(resource, wanted)| {
            let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            (resource, wanted.min(hard))
        }))
    }
}

enum Order {
    Launch {
        launch: Box<Launch>,
        runtime: tokio::runtime::Handle,
        orders: Sender<Self>,
        reply: oneshot::Sender<io::Result<Running>>,
    },
    Clear {
        leader: Pid,
        folder: TempDir,
    },
}

/// Hands orders to the thread, which ends with the last launcher and the last running program.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    orders: Sender<Order>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Launch { .. } => "Launch",
            Self::Clear { .. } => "Clear",
        })
    }
}

impl Launcher {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("exec-launcher".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || obey(&received))?;
        Ok(Self { orders })
    }

    /// Starts a program in a process group and a folder of its own; dropping the answer ends both.
    pub(crate) async fn launch(&self, launch: Launch) -> io::Result<Running> {
        let gone = || io::Error::other("the thread that starts programs is gone");
        let (reply, answer) = oneshot::channel();
        let order = Order::Launch {
            launch: Box::new(launch),
            runtime: tokio::runtime::Handle::current(),
            orders: self.orders.clone(),
            reply,
        };
        self.orders.send(order).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A started program.
#[derive(Debug)]
pub(crate) struct Running {
    // Dropped in this order: the whole group dies before its leader is handed to the reaper.
    pub(crate) group: Group,
    pub(crate) child: Child,
}

/// The process group of a program: dropping it kills every process in it and removes the folder.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    folder: Option<TempDir>,
    orders: Sender<Order>,
}

impl Group {
    /// Kills whatever is left of the group. A group's number is not given away while a process of it lives; after that
    /// the call comes microseconds after the leader was seen to end, and finds nothing.
    pub(crate) fn kill(&self) {
        // An error says that no process is left.
        rustix::process::kill_process_group(self.leader, Signal::KILL).ok();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        if let Some(folder) = self.folder.take() {
            // When the thread is gone, the order comes back in the error and the folder is removed here.
            drop(self.orders.send(Order::Clear { leader: self.leader, folder }));
        }
    }
}

fn obey(orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Launch { launch, runtime, orders, reply } => {
                let _entered = runtime.enter();
                // Nobody waits any more: what was started is dropped, and so killed.
                drop(reply.send(start(*launch, orders)));
            }
            Order::Clear { leader, folder } => {
                // Whoever of the group became this process's child (as process 1 of a container it adopts orphans) was
                // killed and must be reaped; when none is left this returns at once.
                while let Ok(Some(_)) = rustix::process::waitpgid(leader, WaitOptions::empty()) {}
                if let Err(error) = folder.close() {
                    tracing::warn!(%error, "the folder of an ended program could not be removed");
                }
            }
        }
    }
}

fn start(launch: Launch, orders: Sender<Order>) -> io::Result<Running> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("tidemill-exec-");
    let folder = match &launch.folder {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    };
    let place = folder.path().to_owned();
    let mut command = std::process::Command::new(&launch.path);
    command
        .args(&launch.args)
        .env_clear()
        .env("HOME", &place)
        .env("TMPDIR", &place)
        .envs(launch.env)
        .current_dir(&place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    confine(&mut command, launch.limits.clamped());
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let leader = leader.ok_or_else(|| io::Error::other("the started program has no process id"))?;
    Ok(Running { group: Group { leader, folder: Some(folder), orders }, child })
}

/// The descriptors that are looked at one by one on a kernel without `close_range` (before 5.9).
const LAST_DESCRIPTOR: i32 = 4096;

/// Sets, between fork and exec, what holds for the program and all its children.
fn confine(command: &mut std::process::Command, limits: Limits) {
    let parent = rustix::process::getpid();
    let confine = move || {
        for (resource, bound) in limits.0 {
            rustix::process::setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?;
        }
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The worker may have died before the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        close_at_exec();
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed: the closure makes plain system calls on copied
    // numbers; it neither allocates nor locks.
    #[expect(
        unsafe_code,
        reason = "limits must be in force before the program's first instruction; no safe call does that"
    )]
    unsafe {
        command.pre_exec(confine);
    }
}

/// Marks every descriptor but the three pipes: what the worker itself inherited from whoever started it is not the program's.
#[expect(unsafe_code, reason = "no safe crate offers close_range")]
fn close_at_exec() {
    // SAFETY: both calls only set a flag on descriptors, by number; nothing is closed in this process's image.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            for descriptor in 3..LAST_DESCRIPTOR {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
