//! How often one client may ask: settings, and who the client is.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Bounds how often each client may ask the HTTP API (`producer.rate_limit`). A client is an IPv4 address, or the first 64
/// bits of an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in a time for each client: a number, `/`, and a time such as `1s`, `15m` or `1h`. They come back evenly:
    /// of `100/15m` one every 9 seconds.
    pub per_client: String,
    /// Requests of a client that may come at once (default: all of them).
    #[serde(default)]
    pub burst: Option<u32>,
    /// Networks of reverse proxies whose `client_header` is believed, as `10.0.0.0/8` (default: none).
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// The header in which trusted proxies name the client; of several addresses the last that is no trusted proxy's
    /// (default `x-forwarded-for`).
    #[serde(default = "forwarded_for")]
    pub client_header: String,
}

fn forwarded_for() -> String {
    "x-forwarded-for".to_owned()
}

/// How often a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests …
    pub(crate) requests: NonZeroU32,
    /// … in this time.
    pub(crate) within: Duration,
    /// Requests that may come at once.
    pub(crate) burst: NonZeroU32,
}

impl RateLimit {
    /// What is wrong with the values: the key below `producer.rate_limit`, and a sentence.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if let Err(message) = self.rate() {
            problems.push(("per_client".to_owned(), message));
        }
        if self.burst == Some(0) {
            problems.push(("burst".to_owned(), "must be at least 1".to_owned()));
        }
        for (at, network) in self.trusted_proxies.iter().enumerate() {
            if network_of(network).is_none() {
                let message = format!("{network:?} is no network: write `10.0.0.0/8`, or one address");
                problems.push((format!("trusted_proxies[{at}]"), message));
            }
        }
        if self.client_header.parse::<axum::http::HeaderName>().is_err() {
            let message = format!("{:?} is no header's name", self.client_header);
            problems.push(("client_header".to_owned(), message));
        }
        problems
    }

    pub(crate) fn rate(&self) -> Result<Rate, String> {
        let wrong =
            || format!("{:?} is no rate: write a number, `/` and a time, such as `100/15m`", self.per_client);
        let (requests, within) = self.per_client.split_once('/').ok_or_else(wrong)?;
        let requests: NonZeroU32 = requests.trim().parse().map_err(|_| wrong())?;
        let within = time(within.trim()).ok_or_else(wrong)?;
        let burst = self.burst.and_then(NonZeroU32::new).unwrap_or(requests);
        Ok(Rate { requests, within, burst })
    }

    pub(crate) fn proxies(&self) -> Vec<IpNet> {
        self.trusted_proxies.iter().filter_map(|network| network_of(network)).collect()
    }
}

fn network_of(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `250ms`, `1s`, `15m`, `1h`, `1d`; a bare unit is one of it.
fn time(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).filter(|ms| (1..=366 * 86_400_000).contains(ms)).map(Duration::from_millis)
}

/// The client of a request: the peer, or whom the trusted proxies before it name. What a client may forge counts for nothing:
/// addresses are read from the end, up to the first that no trusted proxy has.
pub(crate) fn client<'h>(
    peer: IpAddr,
    named: impl DoubleEndedIterator<Item = &'h str>,
    proxies: &[IpNet],
) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    for hop in named.flat_map(|line| line.split(',')).rev() {
        if !is_proxy(&client) {
            break;
        }
        match address(hop.trim()) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5678`, `::1`, `[::1]:5678`.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.trim_matches(|c| c == '[' || c == ']');
    let found = plain.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    found.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{RateLimit, client, forwarded_for};

    fn limit(per_client: &str) -> RateLimit {
        RateLimit {
            per_client: per_client.to_owned(),
            burst: None,
            trusted_proxies: vec!["10.0.0.0/8".to_owned(), "::1".to_owned()],
            client_header: forwarded_for(),
        }
    }

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        let rate = limit("100/15m").rate().unwrap();
        assert_eq!(
            (rate.requests.get(), rate.within, rate.burst.get()),
            (100, Duration::from_secs(900), 100)
        );
        assert_eq!(limit("5/s").rate().unwrap().within, Duration::from_secs(1));
        for wrong in ["100", "0/1s", "5/", "5/0s", "5/1w", "-1/s", "5/1000d", "/"] {
            assert!(limit(wrong).rate().is_err(), "{wrong}");
        }
        let bad = RateLimit {
            burst: Some(0),
            trusted_proxies: vec!["ten".to_owned()],
            client_header: "x y".to_owned(),
            ..limit("1")
        };
        let keys: Vec<_> = bad.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["per_client", "burst", "trusted_proxies[0]", "client_header"]);
        assert_eq!(limit("5/1s").problems(), []);
    }

    #[test]
    fn only_trusted_proxies_may_name_the_client() {
        let proxies = limit("1/s").proxies();
        let from = |peer: &str, header: &[&str]| {
            client(peer.parse().unwrap(), header.iter().copied(), &proxies).to_string()
        };
        assert_eq!(from("1.2.3.4", &["9.9.9.9"]), "1.2.3.4", "a stranger names nobody");
        assert_eq!(from("10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        let forged = ["6.6.6.6, 9.9.9.9, 10.1.1.1"];
        assert_eq!(from("10.0.0.1", &forged), "9.9.9.9", "what stands before it may be forged");
        assert_eq!(from("10.0.0.1", &["6.6.6.6", "9.9.9.9"]), "9.9.9.9");
        assert_eq!(from("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(from("::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(from("::ffff:10.0.0.1", &["9.9.9.9:80"]), "9.9.9.9");
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(client(peer, std::iter::empty(), &proxies), peer);
    }
}
