//! A service that enforces what it says: the referee of everything that claims to keep to a limit.
//!
//! It is an HTTP/1.1 server on a thread and a runtime of its own, so that neither a busy test nor a paused clock bends
//! its time. It judges by an exact log of the calls and not by any arithmetic of Tidemill's; calls from any process
//! count. A call that breaks a rule gets 429 and is counted; afterwards [`Referee::report`] tells what came and how
//! full the fullest window was.
//!
//! Any method and path is a call. The header `authorization` names the caller, `idempotency-key` the attempt;
//! `x-tokens`, or `tokens`, `input_tokens` and `output_tokens` of a JSON body, tell what the call uses.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use tokio::{runtime::Builder, sync::oneshot};

use crate::TestkitError;

mod answer;
mod ledger;
mod report;
mod request;
mod rules;
mod server;
mod window;

pub use report::{Arrival, Burst, Epoch, KeyReport, Report, Rule, Shares, Verdict};
pub use rules::{Change, Dialect, Fault, Latency, Quota, RetryAfter, RetryForm, Rules, Scope, Unit, Usage};

use ledger::{Ledger, nanos};
use server::Court;

/// A service with limits, on a free port of 127.0.0.1. Ends when dropped.
#[derive(Debug)]
pub struct Referee {
    port: u16,
    court: Arc<Court>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Referee {
    /// Starts one that enforces nothing.
    ///
    /// # Errors
    /// When no port or no thread is to be had.
    pub fn start() -> Result<Self, TestkitError> {
        Self::start_with(Rules::default())
    }

    /// Starts one that enforces `rules`.
    ///
    /// # Errors
    /// When no port or no thread is to be had.
    pub fn start_with(rules: Rules) -> Result<Self, TestkitError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(TestkitError::io("bind a port for a referee"))?;
        let port = listener.local_addr().map_err(TestkitError::io("read a referee's port"))?.port();
        let court = Arc::new(Court::new(Ledger::new(rules)));
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::sync_channel(1);
        let shared = Arc::clone(&court);
        let thread = thread::Builder::new()
            .name("referee".to_owned())
            .spawn(move || run(listener, shared, stopped, &ready))
            .map_err(TestkitError::io("start a referee's thread"))?;
        let started = started.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has ended")));
        started.map_err(TestkitError::io("start a referee"))?;
        Ok(Self { port, court, stop: Some(stop), thread: Some(thread) })
    }

    /// Where to call it: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The rules that hold now.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.court.with(|ledger, _| Rules::clone(ledger.rules()))
    }

    /// Enforces other rules from now on. What was used before stays used: see [`Change`].
    pub fn set(&self, rules: Rules) {
        self.court.with(|ledger, now| ledger.set(now, rules));
    }

    /// Halves every quota, down to 1 at least.
    pub fn halve(&self) {
        self.court.with(|ledger, now| {
            let mut rules = Rules::clone(ledger.rules());
            for quota in &mut rules.quotas {
                quota.limit = (quota.limit / 2).max(1);
            }
            ledger.set(now, rules);
        });
    }

    /// Lets every call that comes in this time (since the start; `to` not included) fail this way. Of several that
    /// cover a time, the first given counts. A call that breaks a rule gets its 429 all the same.
    pub fn fail_between(&self, from: Duration, to: Duration, fault: Fault) {
        self.court.with(|ledger, _| ledger.script(nanos(from), nanos(to), fault));
    }

    /// Lets every call of the next `span` fail this way; tells when that began, since the start.
    pub fn fail_for(&self, span: Duration, fault: Fault) -> Duration {
        self.court.with(|ledger, now| {
            ledger.script(now, now.saturating_add(nanos(span)), fault);
            Duration::from_nanos(now)
        })
    }

    /// Ends what [`Referee::fail_between`] and [`Referee::fail_for`] began or would begin. Calls that hang go on hanging.
    pub fn heal(&self) {
        self.court.with(|ledger, _| ledger.heal());
    }

    /// The time since the start, by which everything here is told.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.court.with(|_, now| Duration::from_nanos(now))
    }

    /// How many calls have come so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        *self.court.calls.borrow()
    }

    /// Waits until at least `count` calls have come.
    pub async fn await_calls(&self, count: usize) {
        let mut calls = self.court.calls.subscribe();
        // the sender lives as long as `self`
        drop(calls.wait_for(|seen| *seen >= count).await);
    }

    /// What it has seen until now.
    #[must_use]
    pub fn report(&self) -> Report {
        let (until, arrivals, epochs, (all, by_key)) = self.court.with(|ledger, now| {
            let (all, by_key) = ledger.together();
            (now, ledger.arrivals().to_vec(), ledger.epochs().to_vec(), (all, by_key.clone()))
        });
        let mut report = Report::new(Duration::from_nanos(until), arrivals, epochs);
        report.most_concurrent = all.most;
        for (key, of_key) in &mut report.per_key {
            of_key.most_concurrent = by_key.get(key).map_or(0, |together| together.most);
        }
        report.worst_stall = Duration::from_nanos(self.court.worst_stall.load(Ordering::Relaxed));
        report
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // a panic over there has been reported over there
            thread.join().ok();
        }
    }
}

/// What the thread does. Its runtime begins and ends there: one must not end within another.
fn run(
    listener: TcpListener,
    court: Arc<Court>,
    stop: oneshot::Receiver<()>,
    ready: &mpsc::SyncSender<io::Result<()>>,
) {
    let told = match Builder::new_current_thread().enable_all().build() {
        Err(error) => ready.send(Err(error)),
        Ok(runtime) => runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Err(error) => ready.send(Err(error)),
                Ok(listener) => {
                    let told = ready.send(Ok(()));
                    server::serve(listener, court, stop).await;
                    told
                }
            }
        }),
    };
    // who started it waits to be told
    drop(told);
}
