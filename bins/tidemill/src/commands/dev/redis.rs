//! A redis-server that belongs to this process.
//!
//! It stands in a process group of its own, so that Ctrl-C reaches this process alone, which first drains and then ends the server.
//! A lock keeps two of them from writing into one folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tidemill_runtime::exit::Exit;
use tidemill_runtime::program::Failure;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::Arguments;

/// Longest time until the server answers: it may have a large file to read.
pub(super) const START: Duration = Duration::from_secs(30);
/// Longest time for the server to end by itself.
const END: Duration = Duration::from_secs(5);

/// The server, if one was started.
#[derive(Debug, Default)]
pub(super) struct Server {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Held for as long as the folder is ours.
    lock: Option<File>,
    /// Known until the process has ended and was waited for, so that no stranger's id is ever signalled.
    pid: Option<Pid>,
}

impl Server {
    /// Starts the server and gives its URL.
    pub(super) fn start(self: &Arc<Self>, arguments: &Arguments, tasks: &Tasks) -> Result<String, Failure> {
        let failed = |message: String| Failure::new(Exit::Failed, message);
        let folder = self.take_folder(&arguments.dir).map_err(failed)?;
        let port = match arguments.redis_port {
            0 => free_port().map_err(|error| failed(format!("no free port for Redis: {error}")))?,
            port => port,
        };
        let mut child = spawn(&arguments.redis_server, &folder, port)
            .map_err(|error| Failure::new(Exit::Redis, not_started(&arguments.redis_server, &error)))?;
        self.state().pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (server, last, log) = (Arc::clone(self), tasks.last_token(), folder.join(LOG));
        tasks.spawn_last("redis-server", OnFailure::ShutDown, async move {
            let ended = watch(&mut child, &server, &last).await;
            server.state().pid = None;
            ended.map_err(|error| format!("{error}; its log is {}", log.display()))
        });
        Ok(format!("redis://127.0.0.1:{port}/0"))
    }

    /// Whether it was started and has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.state().pid.is_some()
    }

    /// Asks the server to end, if it still runs; does not wait.
    pub(super) fn end_now(&self) {
        if let Some(pid) = self.state().pid {
            kill_process(pid, Signal::TERM).ok();
        }
    }

    fn take_folder(&self, dir: &Path) -> Result<PathBuf, String> {
        let told = |what: &str, error: &io::Error| {
            format!("the folder {} {what}: {error}; name another one with --dir", dir.display())
        };
        fs::create_dir_all(dir).map_err(|error| told("cannot be made", &error))?;
        let folder = dir.canonicalize().map_err(|error| told("cannot be used", &error))?;
        let lock = File::create(folder.join("lock")).map_err(|error| told("cannot be written", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another `tidemill dev` uses {}; name another folder with --dir",
                    dir.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(told("cannot be locked", &error)),
        }
        if let Some(pid) = survivor(&folder) {
            return Err(format!(
                "the redis-server of an earlier `tidemill dev` still uses {}; end it with `kill {pid}`",
                dir.display()
            ));
        }
        self.state().lock = Some(lock);
        Ok(folder)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOG: &str = "redis.log";
const PID_FILE: &str = "redis.pid";

fn spawn(program: &Path, folder: &Path, port: u16) -> io::Result<Child> {
    let port = port.to_string();
    let arguments = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--save", ""],
        ["--maxmemory-policy", "noeviction"],
        // the items of a large `for_each` are one key: freed at once they would hold up everybody
        ["--lazyfree-lazy-expire", "yes"],
        ["--daemonize", "no"],
        ["--logfile", LOG],
        ["--pidfile", PID_FILE],
    ];
    Command::new(program)
        .args(arguments.concat())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn not_started(program: &Path, error: &io::Error) -> String {
    let program = program.display();
    if error.kind() == io::ErrorKind::NotFound {
        return format!(
            "there is no `{program}` on PATH, and `tidemill dev` needs one for its private Redis: install Redis (7.0 or newer) \
             or Valkey, name a program with --redis-server, or use a Redis that runs with --redis-url"
        );
    }
    format!("`{program}` cannot be started: {error}; name another one with --redis-server")
}

/// Watches the server until it ends by itself, which is a failure, or everything else has ended.
async fn watch(child: &mut Child, server: &Server, last: &CancellationToken) -> Result<(), String> {
    tokio::select! {
        ended = child.wait() => match ended {
            Ok(status) => return Err(format!("the private Redis has ended ({status})")),
            Err(error) => return Err(format!("the private Redis cannot be watched: {error}")),
        },
        () = last.cancelled() => {}
    }
    server.end_now();
    if tokio::time::timeout(END, child.wait()).await.is_err() {
        child.kill().await.map_err(|error| format!("the private Redis cannot be ended: {error}"))?;
    }
    Ok(())
}

/// A port that is free now. Between here and the server's start somebody may take it: then the start fails and says so.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A server that outlived its process (killed hard) and still stands in the folder.
fn survivor(folder: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(folder.join(PID_FILE)).ok()?.trim().parse().ok()?;
    let place = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (place == folder && name.contains("-server")).then_some(pid)
}
