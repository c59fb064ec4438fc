//! The one URL form for a single server, TLS, Sentinel and Cluster.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

use crate::{Error, Settings};

/// Where Redis is, as told by a URL.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// One server.
    Single(Box<ConnectionInfo>),
    /// A primary found through Sentinels.
    Sentinel {
        /// The Sentinels' addresses.
        sentinels: Vec<(String, u16)>,
        /// The name that the Sentinels know the primary by.
        primary: String,
        /// How to log in at the primary.
        login: RedisConnectionInfo,
        /// Whether the primary speaks TLS.
        tls: bool,
    },
    /// A cluster.
    Cluster(Vec<ConnectionInfo>),
}

/// Makes a URL safe to show: the password becomes `***`.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((login, place)) = rest.rsplit_once('@') else { return url.to_owned() };
    let user = login.split_once(':').map_or(login, |(user, _)| user);
    format!("{scheme}://{user}:***@{place}")
}

fn invalid(url: &str, why: impl std::fmt::Display) -> Error {
    Error::Settings(format!(
        "redis.url {:?}: {why}; expected redis://host:6379/0, rediss://…, redis+unix:///path, \
         redis+sentinel://host:26379,host2:26379/master-name or redis+cluster://host:6379,host2:6379",
        redact_url(url)
    ))
}

impl Endpoint {
    /// Reads the settings' URL and password.
    pub(crate) fn parse(settings: &Settings) -> Result<Self, Error> {
        let url = settings.url.as_str();
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid(url, "it has no scheme"))?;
        let tls = scheme.starts_with("rediss");
        match scheme {
            "redis" | "rediss" | "redis+unix" | "unix" => {
                let info = url.into_connection_info().map_err(|error| invalid(url, error))?;
                let login = Self::login(info.redis_settings().clone(), settings)?;
                Ok(Self::Single(Box::new(info.set_redis_settings(login))))
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (login, hosts) = split_login(place);
                let (primary, db) = path.split_once('/').unwrap_or((path, "0"));
                if primary.is_empty() {
                    return Err(invalid(url, "the name of the Sentinels' master is missing after the hosts"));
                }
                let db = db.parse().map_err(|_| invalid(url, "the database is not a number"))?;
                let login = Self::login(login.set_db(db), settings)?;
                Ok(Self::Sentinel {
                    sentinels: hosts_of(url, hosts, 26379)?,
                    primary: primary.to_owned(),
                    login,
                    tls,
                })
            }
            "redis+cluster" | "rediss+cluster" => {
                let (login, hosts) = split_login(rest.trim_end_matches('/'));
                let login = Self::login(login, settings)?;
                let node = |(host, port): (String, u16)| {
                    let addr = if tls {
                        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
                    } else {
                        ConnectionAddr::Tcp(host, port)
                    };
                    let info = addr.into_connection_info().map_err(|error| invalid(url, error))?;
                    Ok(info.set_redis_settings(login.clone()))
                };
                hosts_of(url, hosts, 6379)?
                    .into_iter()
                    .map(node)
                    .collect::<Result<_, Error>>()
                    .map(Self::Cluster)
            }
            _ => Err(invalid(url, format_args!("the scheme {scheme:?} is unknown"))),
        }
    }

    fn login(login: RedisConnectionInfo, settings: &Settings) -> Result<RedisConnectionInfo, Error> {
        let login = login.set_protocol(ProtocolVersion::RESP2);
        let Some(file) = &settings.password_file else { return Ok(login) };
        let password = std::fs::read_to_string(file).map_err(|error| {
            Error::Settings(format!("redis.password_file {file:?} cannot be read: {error}"))
        })?;
        Ok(login.set_password(password.trim_end()))
    }
}

fn split_login(place: &str) -> (RedisConnectionInfo, &str) {
    let Some((login, hosts)) = place.rsplit_once('@') else { return (RedisConnectionInfo::default(), place) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut info = RedisConnectionInfo::default();
    if !user.is_empty() {
        info = info.set_username(user);
    }
    if !password.is_empty() {
        info = info.set_password(password);
    }
    (info, hosts)
}

fn hosts_of(url: &str, hosts: &str, default_port: u16) -> Result<Vec<(String, u16)>, Error> {
    hosts
        .split(',')
        .map(|host| {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) => (
                    name,
                    port.parse()
                        .map_err(|_| invalid(url, format_args!("the port of {host:?} is not a number")))?,
                ),
                None => (host, default_port),
            };
            if name.is_empty() {
                return Err(invalid(url, "a host is empty"));
            }
            Ok((name.to_owned(), port))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, redact_url};
    use crate::Settings;

    fn parse(url: &str) -> Result<Endpoint, crate::Error> {
        Endpoint::parse(&Settings { url: url.to_owned(), ..Settings::default() })
    }

    #[test]
    fn every_documented_form_is_read() {
        assert!(matches!(parse("redis://u:p@h:1/2"), Ok(Endpoint::Single(_))));
        assert!(matches!(parse("rediss://h:1"), Ok(Endpoint::Single(_))));
        assert!(matches!(parse("redis+unix:///tmp/x.sock"), Ok(Endpoint::Single(_))));
        let sentinel = parse("redis+sentinel://:p@a:1,b/mymaster/3").unwrap();
        let Endpoint::Sentinel { sentinels, primary, .. } = sentinel else { panic!("{sentinel:?}") };
        assert_eq!(sentinels, [("a".to_owned(), 1), ("b".to_owned(), 26379)]);
        assert_eq!(primary, "mymaster");
        assert!(matches!(parse("redis+cluster://a:1,b:2"), Ok(Endpoint::Cluster(nodes)) if nodes.len() == 2));
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_its_password() {
        for bad in
            ["nonsense", "http://u:secret@h", "redis+sentinel://u:secret@h:1", "redis+cluster://u:secret@h:x"]
        {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.contains("expected redis://"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(redact_url("redis://u:p@h:1"), "redis://u:***@h:1");
    }
}
