//! Who asks, and how often each may: in this process alone, by `governor`.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use tokio::time::Instant;

use super::Door;
use crate::rate_limit::{self, RateLimit};
use crate::refusal::{Code, Refusal};

/// Clients that are told apart; beyond them new ones share [`SHARED`] places.
const MOST_CLIENTS: usize = 65_536;
const SHARED: u64 = 1_024;
/// Requests between two times that clients are forgotten who have all of theirs left.
const SWEEP_EVERY: u64 = 1_024;

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who a request counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    V4([u8; 4]),
    V6([u16; 4]),
    Shared(u64),
}

/// Time for `governor`, which a test can pause.
#[derive(Debug, Clone)]
struct Ticks {
    start: Instant,
}

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

type Limiter = RateLimiter<Key, HashMapStateStore<Key>, Ticks, StateInformationMiddleware>;

/// The clients of the HTTP API.
#[derive(Debug)]
pub(super) struct Clients {
    proxies: Vec<IpNet>,
    header: Option<HeaderName>,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    limiter: Limiter,
    clock: Ticks,
    policy: HeaderValue,
    burst: u32,
    /// For one more request.
    step: Duration,
    asked: AtomicU64,
    hasher: RandomState,
}

impl Clients {
    pub(super) fn new(settings: Option<&RateLimit>) -> Self {
        let Some(settings) = settings else { return Self { proxies: Vec::new(), header: None, bound: None } };
        Self {
            proxies: settings.proxies(),
            header: settings.client_header.parse().ok(),
            bound: settings.rate().ok().and_then(|rate| Bound::new(&rate)),
        }
    }

    /// The address of the client that asks.
    pub(super) fn address(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let lines: Vec<&str> = match &self.header {
            Some(name) => headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect(),
            None => Vec::new(),
        };
        rate_limit::client(peer.0.ip(), lines.into_iter(), &self.proxies)
    }
}

impl Bound {
    fn new(rate: &rate_limit::Rate) -> Option<Self> {
        let step = (rate.within / rate.requests.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(step)?.allow_burst(rate.burst);
        let clock = Ticks { start: Instant::now() };
        let limiter = RateLimiter::hashmap_with_clock(quota, clock.clone())
            .with_middleware::<StateInformationMiddleware>();
        let seconds = rate.within.as_secs().max(1);
        let policy = format!("\"client\";q={};w={seconds}", rate.requests);
        let policy = HeaderValue::try_from(policy).ok()?;
        let burst = rate.burst.get();
        Some(Self {
            limiter,
            clock,
            policy,
            burst,
            step,
            asked: AtomicU64::new(0),
            hasher: RandomState::new(),
        })
    }

    /// How many requests the client has left, or how long it has to wait.
    fn ask(&self, client: IpAddr) -> Result<u32, Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.limiter.retain_recent();
        }
        let key = if self.limiter.len() < MOST_CLIENTS { Key::of(client) } else { self.shared(client) };
        match self.limiter.check_key(&key) {
            Ok(snapshot) => Ok(snapshot.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(self.clock.now())),
        }
    }

    fn shared(&self, client: IpAddr) -> Key {
        Key::Shared(self.hasher.hash_one(Key::of(client)) % SHARED)
    }

    /// The headers of the IETF draft on rate limits: the policy, what is left, and when all is.
    fn tell(&self, response: &mut Response, left: u32, wait: Duration) {
        let until_whole = wait + self.step * (self.burst.saturating_sub(left));
        let seconds = until_whole.as_secs() + u64::from(until_whole.subsec_nanos() > 0);
        response.headers_mut().insert("ratelimit-policy", self.policy.clone());
        if let Ok(value) = HeaderValue::try_from(format!("\"client\";r={left};t={seconds}")) {
            response.headers_mut().insert("ratelimit", value);
        }
    }
}

impl Key {
    /// Whoever has an IPv6 address has 2^64 of them.
    const fn of(client: IpAddr) -> Self {
        match client {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = Ipv6Addr::segments(&address);
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Lets a client ask as often as it may.
pub(super) async fn bound(State(door): State<Door>, request: Request, next: Next) -> Response {
    let clients = &door.inner.clients;
    let (Some(bound), Some(peer)) = (&clients.bound, request.extensions().get::<Peer>().copied()) else {
        return next.run(request).await;
    };
    let client = clients.address(peer, request.headers());
    match bound.ask(client) {
        Ok(left) => {
            let mut response = next.run(request).await;
            bound.tell(&mut response, left, Duration::ZERO);
            response
        }
        Err(wait) => {
            door.intake().meters().rate_limited.inc();
            let detail = format!(
                "{client} asks more often than it may (producer.rate_limit.per_client); try again in {} ms",
                tidemill_runtime::clock::milliseconds(wait)
            );
            let refusal = Refusal::new(Code::TooManyRequests, detail).again_after(wait);
            let mut response = super::answer::problem(&refusal, request.uri().path());
            bound.tell(&mut response, 0, wait);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{Bound, MOST_CLIENTS, SHARED, SWEEP_EVERY};
    use crate::rate_limit::Rate;

    fn bound(requests: u32, within: Duration) -> Bound {
        let requests = requests.try_into().unwrap();
        Bound::new(&Rate { requests, within, burst: requests }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_requests_and_they_come_back_evenly() {
        let bound = bound(3, Duration::from_secs(30));
        let (one, other): (IpAddr, IpAddr) = ("1.2.3.4".parse().unwrap(), "1.2.3.5".parse().unwrap());
        assert_eq!([bound.ask(one), bound.ask(one), bound.ask(one)], [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(bound.ask(one), Err(Duration::from_secs(10)));
        assert_eq!(bound.ask(other), Ok(2));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(bound.ask(one), Ok(0));
        assert!(bound.ask(one).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_in_ipv6_are_one_client() {
        let bound = bound(1, Duration::from_secs(1));
        assert_eq!(bound.ask("2001:db8:1:2::1".parse().unwrap()), Ok(0));
        assert!(bound.ask("2001:db8:1:2:ffff::9".parse().unwrap()).is_err());
        assert_eq!(bound.ask("2001:db8:1:3::1".parse().unwrap()), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_without_number_take_bounded_memory_and_stay_bounded() {
        let bound = bound(1, Duration::from_secs(3_600));
        let most = u32::try_from(MOST_CLIENTS).unwrap();
        let mut refused = 0;
        for n in 0..2 * most {
            refused += u32::from(bound.ask(IpAddr::from(n.to_be_bytes())).is_err());
        }
        let shared = usize::try_from(SHARED).unwrap();
        assert!(bound.limiter.len() <= MOST_CLIENTS + shared, "{}", bound.limiter.len());
        assert!(refused >= most - u32::try_from(SHARED).unwrap(), "{refused}");
        // whoever has been silent long enough is forgotten
        tokio::time::advance(Duration::from_secs(7_200)).await;
        for _ in 0..SWEEP_EVERY {
            bound.ask("9.9.9.9".parse().unwrap()).ok();
        }
        assert!(bound.limiter.len() < 10, "{}", bound.limiter.len());
    }
}
