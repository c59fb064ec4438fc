//! The referee's own thread: it takes connections, has each call judged, and answers.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    answer::{answer, refuse},
    ledger::{Call, Decision, Ledger, nanos},
    request::{self, Received},
    rules::Fault,
};

/// How often the referee looks whether it gets to run.
const TICK: Duration = Duration::from_millis(5);
/// What a caller may send ahead while its call is under way.
const AHEAD_BYTES: usize = 64 * 1024;
/// Timers tick in milliseconds and round up: half of one earlier keeps the mean.
const ROUNDING: Duration = Duration::from_micros(500);

/// What the thread and the handle share.
#[derive(Debug)]
pub(super) struct Court {
    ledger: Mutex<Ledger>,
    started: Instant,
    wall: SystemTime,
    pub(super) calls: watch::Sender<usize>,
    pub(super) worst_stall: AtomicU64,
}

impl Court {
    pub(super) fn new(ledger: Ledger) -> Self {
        #[expect(clippy::disallowed_methods, reason = "answers carry dates, as those of any web server")]
        let wall = SystemTime::now();
        Self {
            ledger: Mutex::new(ledger),
            started: Instant::now(),
            wall,
            calls: watch::Sender::new(0),
            worst_stall: AtomicU64::new(0),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does something with the ledger. The time is read under its lock, so that it never runs backwards there.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Ledger, u64) -> T) -> T {
        let mut ledger: MutexGuard<'_, Ledger> = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut ledger, nanos(self.elapsed()))
    }

    fn wall(&self) -> SystemTime {
        self.wall + self.elapsed()
    }

    fn end(&self, decision: &Decision, status: Option<u16>) {
        self.with(|ledger, now| ledger.end(now, decision.place, status));
    }
}

/// Serves until the other half of `stop` is dropped.
pub(super) async fn serve(listener: TcpListener, court: Arc<Court>, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = tick.tick().await;
    loop {
        tokio::select! {
            _ = &mut stop => return,
            now = tick.tick() => {
                let now = now.max(Instant::now());
                let stall = now.duration_since(last).saturating_sub(TICK);
                court.worst_stall.fetch_max(nanos(stall), Ordering::Relaxed);
                last = now;
            }
            accepted = listener.accept() => match accepted {
                // a caller that goes away ends its own connection only
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&court)));
                }
                // out of file descriptors: some are freed when connections end
                Err(_) => sleep(TICK).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the calls of one connection, one after the other.
async fn converse(mut stream: TcpStream, court: Arc<Court>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(4_096);
    loop {
        match request::read(&mut stream, &mut received).await? {
            Received::Nothing => return Ok(()),
            Received::Unreadable(status) => {
                stream.write_all(&refuse(status, court.wall())).await?;
                return Ok(());
            }
            Received::Call { call, last } => {
                let decision = court.with(|ledger, now| ledger.judge(now, &call));
                court.calls.send_modify(|calls| *calls += 1);
                let goes_on = respond(&mut stream, &mut received, (&court, &call, &decision)).await?;
                if last || !goes_on {
                    return Ok(());
                }
            }
        }
    }
}

/// Answers one call in its time. Tells whether the connection can go on.
async fn respond(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    (court, call, decision): (&Court, &Call, &Decision),
) -> io::Result<bool> {
    if decision.fault == Some(Fault::Hang) {
        while !is_gone(stream, received).await {}
        court.end(decision, None);
        return Ok(false);
    }
    if !decision.latency.is_zero() {
        let due = court.started + Duration::from_nanos(decision.at) + decision.latency;
        if !still_there_at(due - ROUNDING, stream, received).await {
            court.end(decision, None);
            return Ok(false);
        }
    }
    let answer = answer(decision, call, court.wall());
    if decision.fault == Some(Fault::Reset) {
        court.end(decision, None);
        let half = answer.bytes.len() - 5; // every body is longer
        stream.write_all(answer.bytes.get(..half).unwrap_or_default()).await?;
        stream.set_zero_linger()?;
        return Ok(false);
    }
    // before the answer: who has it may call again at once, over another connection
    court.end(decision, Some(answer.status));
    stream.write_all(&answer.bytes).await?;
    Ok(true)
}

/// Waits for a time; `false` when the caller goes away before it.
async fn still_there_at(due: Instant, stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    let pause = sleep_until(due);
    tokio::pin!(pause);
    loop {
        tokio::select! {
            () = &mut pause => return true,
            gone = is_gone(stream, received), if received.len() < AHEAD_BYTES => if gone { return false },
        }
    }
}

/// Waits for the caller to do something. A caller with a call under way that ends its side has given it up.
async fn is_gone(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    stream.read_buf(received).await.unwrap_or(0) == 0
}
