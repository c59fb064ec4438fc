//! A TCP proxy that stands for the network between a client and a server, and fails on demand.
//!
//! One task accepts; each connection is one task that owns both of its sockets and moves bytes in both directions.
//! All of them watch one [`Orders`] value, so that a change reaches open connections at once. Dropping the proxy ends
//! all tasks and with them all connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::TestkitError;

/// Bytes moved at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Silence of the server after which a dropped reply counts as complete.
const REPLY_SILENCE: Duration = Duration::from_millis(50);

/// How the proxy treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Everything passes.
    Pass,
    /// Nothing passes, in either direction, and connections stay open, new ones too. What was sent meanwhile arrives
    /// when traffic passes again, as after a network that comes back.
    BlackHole,
    /// Requests reach the server, replies wait.
    HoldReplies,
    /// Each chunk of bytes, in each direction, waits this long.
    Delay(Duration),
    /// New connections are closed at once; open ones are cut.
    Refuse,
}

#[derive(Debug, Clone)]
struct Orders {
    traffic: Traffic,
    /// Connections accepted under an older number are cut.
    epoch: u64,
    drop_reply: Option<Arc<DropReply>>,
}

#[derive(Debug)]
struct DropReply {
    needle: Vec<u8>,
    /// Requests that still pass before the one whose reply is dropped.
    before: AtomicUsize,
}

impl DropReply {
    /// Counts the requests in `bytes`; tells whether the chosen one is among them. `tail` holds the end of the bytes
    /// before, so that a request split over two reads is seen.
    fn matches(&self, tail: &mut Vec<u8>, bytes: &[u8]) -> bool {
        tail.extend_from_slice(bytes);
        let mut chosen = false;
        let mut start = 0;
        while let Some(found) = find(tail.get(start..).unwrap_or_default(), &self.needle) {
            start += found + self.needle.len();
            // `usize::MAX` stays put: the rule has fired.
            let counted = self.before.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                usize::MAX => None,
                0 => Some(usize::MAX),
                left => Some(left - 1),
            });
            chosen |= counted == Ok(0);
        }
        let keep = self.needle.len().saturating_sub(1).min(tail.len() - start);
        tail.drain(..tail.len() - keep);
        chosen
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// A proxy on a port of its own, in front of one server.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    orders: watch::Sender<Orders>,
    dropped: watch::Receiver<usize>,
    accepted: watch::Receiver<usize>,
    tasks: JoinSet<()>,
}

/// What a connection's task needs to know.
#[derive(Debug, Clone)]
struct Wiring {
    target: SocketAddr,
    orders: watch::Receiver<Orders>,
    dropped: Arc<watch::Sender<usize>>,
    accepted: Arc<watch::Sender<usize>>,
}

impl FaultProxy {
    /// Starts a proxy to `127.0.0.1:port`; everything passes.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(port: u16) -> Result<Self, TestkitError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(TestkitError::io("bind a port for a fault proxy"))?;
        let own = listener.local_addr().map_err(TestkitError::io("read a fault proxy's port"))?.port();
        let (orders, watched) = watch::channel(Orders { traffic: Traffic::Pass, epoch: 0, drop_reply: None });
        let (dropped_sender, dropped) = watch::channel(0);
        let (accepted_sender, accepted) = watch::channel(0);
        let wiring = Wiring {
            target: (Ipv4Addr::LOCALHOST, port).into(),
            orders: watched,
            dropped: Arc::new(dropped_sender),
            accepted: Arc::new(accepted_sender),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, wiring));
        Ok(Self { port: own, orders, dropped, accepted, tasks })
    }

    /// The port to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Treats all bytes this way from now on, on open connections too. [`Traffic::Refuse`] also cuts them.
    pub fn set(&self, traffic: Traffic) {
        self.orders.send_modify(|orders| {
            orders.traffic = traffic;
            if traffic == Traffic::Refuse {
                orders.epoch += 1;
            }
        });
    }

    /// Cuts every open connection; new ones are taken as before.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.epoch += 1);
    }

    /// Lets the `n`-th request from now on (1 is the next) that contains `needle` reach the server, swallows its
    /// reply, and cuts its connection: the client cannot know whether the request was carried out, and it was. An
    /// order replaces the one before.
    pub fn drop_reply(&self, needle: impl AsRef<[u8]>, n: usize) {
        let needle = needle.as_ref().to_owned();
        let rule = DropReply { before: AtomicUsize::new(n.saturating_sub(1)), needle };
        self.orders.send_modify(|orders| {
            orders.drop_reply = (!rule.needle.is_empty()).then(|| Arc::new(rule));
        });
    }

    /// How many replies have been dropped so far.
    #[must_use]
    pub fn replies_dropped(&self) -> usize {
        *self.dropped.borrow()
    }

    /// Waits until at least `count` replies have been dropped.
    pub async fn await_dropped(&self, count: usize) {
        let mut dropped = self.dropped.clone();
        // The sender lives in the accepting task, which lives as long as `self`.
        drop(dropped.wait_for(|seen| *seen >= count).await);
    }

    /// How many connections have been accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until at least `count` connections have been accepted since the start.
    pub async fn await_connections(&self, count: usize) {
        let mut accepted = self.accepted.clone();
        drop(accepted.wait_for(|seen| *seen >= count).await);
    }

    /// Ends the proxy: its port refuses connections, open ones are cut.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, wiring: Wiring) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                wiring.accepted.send_modify(|count| *count += 1);
                if wiring.orders.borrow().traffic != Traffic::Refuse {
                    connections.spawn(serve(client, wiring.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, wiring: Wiring) {
    let mut orders = wiring.orders.clone();
    let epoch = orders.borrow().epoch;
    // A black hole accepts, and the server must not see even the connection.
    let reachable = orders.wait_for(|orders| orders.traffic != Traffic::BlackHole || orders.epoch != epoch);
    if reachable.await.is_err() || wiring.orders.borrow().epoch != epoch {
        return;
    }
    let Ok(server) = TcpStream::connect(wiring.target).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (swallow, swallowing) = watch::channel(false);
    tokio::select! {
        // Cuts go first, whatever else is ready.
        biased;
        _ = orders.wait_for(|orders| orders.epoch != epoch) => {}
        _ = move_requests(from_client, to_server, wiring.orders.clone(), &swallow) => {}
        _ = move_replies(from_server, to_client, &wiring, swallowing) => {}
    }
}

async fn move_requests(
    mut source: impl AsyncRead + Unpin,
    mut target: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Orders>,
    swallow: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut tail = Vec::new();
    loop {
        let length = source.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let now = passable(&mut orders, |traffic| traffic != Traffic::BlackHole).await?;
        if let Some(rule) = now.drop_reply
            && rule.matches(&mut tail, bytes)
        {
            swallow.send_replace(true);
        }
        target.write_all(bytes).await?;
    }
}

async fn move_replies(
    mut source: impl AsyncRead + Unpin,
    mut target: impl AsyncWrite + Unpin,
    wiring: &Wiring,
    swallowing: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut orders = wiring.orders.clone();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = source.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        if *swallowing.borrow() {
            swallow_replies(&mut source, &mut buffer).await?;
            wiring.dropped.send_modify(|count| *count += 1);
            return Ok(());
        }
        passable(&mut orders, |traffic| !matches!(traffic, Traffic::BlackHole | Traffic::HoldReplies))
            .await?;
        target.write_all(bytes).await?;
    }
}

/// Reads on until the server has been silent for a while: replies to earlier requests may come before the chosen one.
async fn swallow_replies(source: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<()> {
    while let Ok(read) = tokio::time::timeout(REPLY_SILENCE, source.read(buffer)).await {
        if read? == 0 {
            break;
        }
    }
    Ok(())
}

/// Waits until bytes may go on, and returns the orders of that moment.
async fn passable(
    orders: &mut watch::Receiver<Orders>,
    open: impl Fn(Traffic) -> bool,
) -> io::Result<Orders> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let now = orders.wait_for(|orders| open(orders.traffic)).await.map_err(gone)?.clone();
    if let Traffic::Delay(pause) = now.traffic {
        sleep(pause).await;
    }
    Ok(now)
}
