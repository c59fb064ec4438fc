//! Which hosts and addresses may be called: the guard against server-side request forgery.
//!
//! Only public unicast addresses pass; everything else needs the operator's word. The check is made on the address that
//! the socket connects to, after the name was resolved, on every hop and again whenever a kept connection is used: a name
//! that resolves differently the second time gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tidemill_tool::{ErrorClass, ToolError};
use url::Url;

use super::settings::Settings;

/// IPv4 networks that are not the public internet (IANA's special-purpose registry).
const CLOSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(168, 63, 129, 16, 32), // the wire server of Azure: public by number, private by use
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// IPv6: only `2000::/3` is global unicast, and not all of that.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const CLOSED_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocol assignments, Teredo, ORCHID
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation
];
/// NAT64: the address is the IPv4 address in the last four bytes.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

/// Whether anybody may call this address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !CLOSED_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_public(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !CLOSED_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Whether this is where clouds keep the credentials of the machine.
fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_link_local()
                || [[100, 100, 100, 200], [168, 63, 129, 16], [192, 0, 0, 192]].contains(&address.octets())
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

/// `name`, `name:port` or `*.suffix`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPattern {
    name: String,
    is_suffix: bool,
    port: Option<u16>,
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a host; write `name`, `name:port` or `*.suffix`, without a scheme or a path"
            )
        };
        let (rest, is_suffix) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        // The URL parser normalises the name exactly as it does for a call (case, IDNA, spellings of addresses).
        let url = Url::parse(&format!("http://{rest}/")).map_err(|_| wrong())?;
        let name = url.host_str().ok_or_else(wrong)?;
        let plain = url.path() == "/"
            && url.username().is_empty()
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain || name.contains('*') || rest.contains('/') {
            return Err(wrong());
        }
        let port = if rest.ends_with(":80") { Some(80) } else { url.port() };
        Ok(Self { name: host_name(name).to_owned(), is_suffix, port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let host = host_name(host);
        let name_fits = if self.is_suffix {
            host.strip_suffix(self.name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.name
        };
        name_fits && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// A name without the dot of its root.
fn host_name(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Decides which hosts and addresses may be called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    networks: Vec<IpNet>,
    allowed: Vec<HostPattern>,
    only: Vec<HostPattern>,
}

impl Guard {
    /// # Errors
    /// A network or a host in the settings is malformed; the sentence names it.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let networks = settings
            .allow_networks
            .iter()
            .map(|text| {
                text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                    format!("allow_networks: `{text}` is not a network; write it as CIDR, such as 10.0.0.0/8 or fd00::/8")
                })
            })
            .collect::<Result<_, _>>()?;
        let hosts = |key: &str, list: &[String]| {
            list.iter()
                .map(|text| HostPattern::parse(text).map_err(|why| format!("{key}: {why}")))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            networks,
            allowed: hosts("allow_hosts", &settings.allow_hosts)?,
            only: hosts("only_hosts", &settings.only_hosts)?,
        })
    }

    /// The same guard, which also lets the origin of the operator's own URL pass.
    pub(crate) fn with_origin(&self, url: &Url) -> Self {
        let mut guard = self.clone();
        if let (Some(name), Some(port)) = (url.host_str(), url.port_or_known_default()) {
            let pattern =
                HostPattern { name: host_name(name).to_owned(), is_suffix: false, port: Some(port) };
            if !guard.only.is_empty() {
                guard.only.push(pattern.clone());
            }
            guard.allowed.push(pattern);
        }
        guard
    }

    /// Whether the host may be called at all, before anything is resolved.
    pub(crate) fn check_host(&self, host: &str, port: u16) -> Result<(), ToolError> {
        if self.only.is_empty() || self.only.iter().any(|pattern| pattern.matches(host, port)) {
            return Ok(());
        }
        Err(refused(format!(
            "the host {host}:{port} is not among those that may be called; an operator adds it to http_request.only_hosts"
        )))
    }

    /// Whether a connection to this address may carry a call to this host.
    pub(crate) fn permits(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address)
            || self.networks.iter().any(|network| network.contains(&address))
            || (!is_metadata(address) && self.allowed.iter().any(|pattern| pattern.matches(host, port)))
    }

    /// The error for a host of which no address may be called. It does not say the address: a caller could map a network.
    pub(crate) fn refusal(host: &str, port: u16) -> ToolError {
        refused(format!(
            "{host}:{port} is not a public address; an operator allows it in http_request.allow_hosts or http_request.allow_networks"
        ))
    }
}

fn refused(message: String) -> ToolError {
    ToolError::new(ErrorClass::Forbidden, "address_refused", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(networks: &[&str], hosts: &[&str]) -> Result<Guard, String> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Guard::new(&Settings {
            allow_networks: owned(networks),
            allow_hosts: owned(hosts),
            ..Settings::default()
        })
    }

    #[test]
    fn every_address_that_is_not_public_is_closed() -> Result<(), std::net::AddrParseError> {
        let closed = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 \
             172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 \
             198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 :: \
             ::1 fe80::1 fc00::1 fd00:ec2::254 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 \
             64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 100::1 \
             fec0::1 4000::1";
        for text in closed.split_whitespace() {
            assert!(!is_public(text.parse()?), "{text} passed");
        }
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2a00:1450::1",
        ] {
            assert!(is_public(text.parse()?), "{text} was refused");
        }
        Ok(())
    }

    #[test]
    fn an_allowed_host_opens_its_private_addresses_but_not_the_metadata_service()
    -> Result<(), Box<dyn std::error::Error>> {
        let guard = guard(&[], &["shop.internal:8080", "*.svc"])?;
        assert!(guard.permits("shop.internal", 8080, "10.0.0.1".parse()?));
        assert!(guard.permits("shop.internal.", 8080, "10.0.0.1".parse()?));
        assert!(!guard.permits("shop.internal", 80, "10.0.0.1".parse()?));
        assert!(guard.permits("a.svc", 1, "10.0.0.1".parse()?));
        assert!(!guard.permits("svc", 1, "10.0.0.1".parse()?));
        assert!(!guard.permits("evilsvc", 1, "10.0.0.1".parse()?));
        for metadata in
            ["169.254.169.254", "fd00:ec2::254", "fe80::1", "100.100.100.200", "::ffff:169.254.169.254"]
        {
            assert!(!guard.permits("a.svc", 1, metadata.parse()?), "{metadata} passed");
        }
        Ok(())
    }

    #[test]
    fn an_allowed_network_opens_itself_and_nothing_else() -> Result<(), Box<dyn std::error::Error>> {
        let guard = guard(&["127.0.0.0/8", "fd12::1"], &[])?;
        assert!(guard.permits("x", 1, "127.1.2.3".parse()?));
        assert!(guard.permits("x", 1, "::ffff:127.0.0.1".parse()?));
        assert!(guard.permits("x", 1, "fd12::1".parse()?));
        assert!(!guard.permits("x", 1, "fd12::2".parse()?));
        assert!(!guard.permits("x", 1, "10.0.0.1".parse()?));
        Ok(())
    }

    #[test]
    fn malformed_settings_are_refused_by_name() {
        for network in ["10.0.0.0/33", "all", "10.0.0"] {
            assert!(guard(&[network], &[]).is_err_and(|why| why.contains(network)), "{network}");
        }
        for host in ["http://a", "a/b", "*", "a b", "u@a", ""] {
            assert!(guard(&[], &[host]).is_err_and(|why| why.contains("allow_hosts")), "{host}");
        }
    }

    #[test]
    fn only_the_listed_hosts_are_called_when_there_is_a_list() -> Result<(), String> {
        let guard =
            Guard::new(&Settings { only_hosts: vec!["api.example.com".to_owned()], ..Settings::default() })?;
        assert_eq!(guard.check_host("api.example.com", 443), Ok(()));
        assert!(guard.check_host("evil.example.com", 443).is_err());
        Ok(())
    }
}
