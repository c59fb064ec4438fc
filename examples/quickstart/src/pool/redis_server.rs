//! The private redis-server.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::oneshot;

use super::process::Program;
use super::settings::on_path;

const STARTING: Duration = Duration::from_secs(10);
/// Between finding a port free and binding it another program may take it.
const ATTEMPTS: u32 = 5;

/// A port of this machine that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Starts Redis with an append-only file in `folder`/redis. Gives its URL.
pub(super) async fn start(folder: &Path, tasks: &Tasks) -> Result<(Program, String)> {
    let data = folder.join("redis");
    tokio::fs::create_dir_all(&data).await.with_context(|| format!("creating {}", data.display()))?;
    let mut last = anyhow!("not tried");
    for _ in 0..ATTEMPTS {
        let port = free_port()?;
        match attempt(port, &data, &folder.join("redis.log"), tasks).await {
            Ok(program) => return Ok((program, format!("redis://127.0.0.1:{port}/0"))),
            Err(error) => last = error,
        }
    }
    Err(last.context("redis-server does not start"))
}

async fn attempt(port: u16, data: &Path, log: &Path, tasks: &Tasks) -> Result<Program> {
    let (port, folder) = (port.to_string(), data.display().to_string());
    let arguments = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--dir", &folder],
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--save", ""],
        ["--maxmemory-policy", "noeviction"],
        ["--daemonize", "no"],
    ];
    let server = on_path("redis-server")
        .context("redis-server 7 is not on PATH; ./tidemill-quickstart installs it on Debian")?;
    let (mut program, stdout) = Program::start_read("redis-server", &server, arguments.as_flattened(), log)?;
    let (tell, ready) = oneshot::channel();
    let log = File::create(log).await.with_context(|| format!("creating {}", log.display()))?;
    tasks.spawn_last("log of redis-server", OnFailure::Log, keep_log(stdout, log, tell));
    tokio::select! {
        told = tokio::time::timeout(STARTING, ready) => match told {
            Ok(Ok(())) => Ok(program),
            // it closed its output: it is ending, and says why in its log
            Ok(Err(_)) => Err(program.ended().await),
            Err(_) => bail!("it was not ready within {} s", STARTING.as_secs()),
        },
        ended = program.ended() => Err(ended),
    }
}

/// Writes what Redis says to its log until it ends, and tells when it is ready.
async fn keep_log(stdout: ChildStdout, mut log: File, ready: oneshot::Sender<()>) -> io::Result<()> {
    let (mut lines, mut ready) = (BufReader::new(stdout).lines(), Some(ready));
    while let Some(line) = lines.next_line().await? {
        log.write_all(line.as_bytes()).await?;
        log.write_all(b"\n").await?;
        log.flush().await?;
        if line.contains("Ready to accept connections")
            && let Some(ready) = ready.take()
        {
            // nobody listens any more when the start was given up
            ready.send(()).unwrap_or_default();
        }
    }
    Ok(())
}
