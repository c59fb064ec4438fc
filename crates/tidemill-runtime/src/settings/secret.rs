//! What must not be shown.

/// Stands in place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// Whether a key of this name holds a secret: passwords, tokens, secrets, keys of APIs, credentials in headers.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    ["password", "passwd", "api_key", "apikey", "authorization", "cookie", "credential", "private_key"]
        .iter()
        .any(|part| key.contains(part))
        || ["token", "secret"].iter().any(|end| key == *end || key.ends_with(&format!("_{end}")))
}

/// Whether what stands at this path is secret: a key along it says so. A service's `credential` and `per_credential` say which
/// credential a call uses, and are none.
pub(crate) fn is_secret_path(path: &[String]) -> bool {
    let names_one = matches!(path, [section, _, key, ..] if section == "services" && (key == "credential" || key == "per_credential"));
    path.iter().enumerate().any(|(at, key)| is_secret_key(key) && !(names_one && at == 2))
}

/// Whether a value names a secret instead of being one: `env:SHOP_TOKEN`, `file:/run/secrets/token`.
pub(crate) fn is_reference(value: &str) -> bool {
    ["env:", "file:", "secret://"].iter().any(|scheme| value.starts_with(scheme))
}

/// The text with the password of every URL in it (`scheme://user:password@host`, `?password=…`) replaced by `***`.
#[must_use]
pub fn redact_urls(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '`' | '\'')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        clean.push_str(&redact_url_body(url));
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

/// What follows `://`. Everything up to the last `@` before a slash may be a password that was not escaped.
fn redact_url_body(url: &str) -> String {
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (url, None),
    };
    let mut clean = match address.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
            None => format!("{login}@{host}"),
        },
        None => address.to_owned(),
    };
    if let Some(query) = query {
        let hide = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if is_secret_key(name) || name == "pass" => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        };
        clean.push('?');
        clean.push_str(&query.split('&').map(hide).collect::<Vec<_>>().join("&"));
    }
    clean
}
