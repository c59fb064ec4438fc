//! Secrets: references in the operator's settings, values only in a worker's memory and only during a call.
//!
//! A reference is `{secret: "env:NAME"}` or `{secret: "file:/path"}` (with an optional `prefix`), or `secret://env/NAME`
//! and `secret://file/path` inside a string. A value never appears in `Debug` or `Display`, and whatever a tool gives back
//! passes [`redact`] first.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tidemill_tool::{ErrorClass, Payload, ToolError};
use zeroize::Zeroizing;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// The longest secret that is read from a file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The marker of a reference inside a string.
const INLINE: &str = "secret://";

/// A secret value: wiped when dropped, and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a value in.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself: for the wire, never for a log, an error or a result.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Env(String),
    File(PathBuf),
}

impl Source {
    /// Reads `env:NAME` or `file:/path`.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let legal =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            return if legal {
                Ok(Self::Env(name.to_owned()))
            } else {
                Err(format!("`{text}` does not name an environment variable: use A-Z, a-z, 0-9 and `_`"))
            };
        }
        match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            Some(path) => Err(format!("the secret's file `{path}` is not an absolute path")),
            None => Err("a secret is `env:NAME` or `file:/absolute/path`".to_owned()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// What tells that a file was written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    length: u64,
}

/// Reads secrets; files are read again when they have changed, so that a rotated secret needs no restart.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    files: Mutex<HashMap<PathBuf, (Version, Secret)>>,
}

impl Secrets {
    fn read(&self, source: &Source) -> Result<Secret, ToolError> {
        let value = match source {
            Source::Env(name) => read_env(name),
            Source::File(path) => self.read_file(path),
        };
        value
            .and_then(
                |secret| if secret.expose().is_empty() { Err("is empty".to_owned()) } else { Ok(secret) },
            )
            .map_err(|why| {
                ToolError::new(
                    ErrorClass::Internal,
                    "secret_unavailable",
                    format!("the secret {source} {why}; set it where this worker runs"),
                )
            })
    }

    fn read_file(&self, path: &Path) -> Result<Secret, String> {
        let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        let version = Version { modified: metadata.modified().ok(), length: metadata.len() };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, secret)) = files.get(path)
            && *known == version
        {
            return Ok(secret.clone());
        }
        if version.length > MAX_SECRET_BYTES {
            return Err(format!("is larger than {MAX_SECRET_BYTES} bytes"));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
        let secret = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
        files.insert(path.to_owned(), (version, secret.clone()));
        Ok(secret)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a secret is read at call time and must not pass through the settings"
)]
fn read_env(name: &str) -> Result<Secret, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Secret::new(value)),
        Err(std::env::VarError::NotPresent) => Err("is not set".to_owned()),
        Err(std::env::VarError::NotUnicode(_)) => Err("is not UTF-8".to_owned()),
    }
}

/// A reference that stands as an object: its source and what is put before the value.
fn object_reference(object: &Map<String, Value>) -> Option<Result<(Source, &str), String>> {
    let secret = object.get("secret")?;
    let prefix = match object.get("prefix") {
        None if object.len() == 1 => "",
        Some(Value::String(prefix)) if object.len() == 2 => prefix.as_str(),
        _ => return None,
    };
    Some(secret.as_str().map_or_else(
        || Err("`secret` must be a string: `env:NAME` or `file:/absolute/path`".to_owned()),
        |text| Source::parse(text).map(|source| (source, prefix)),
    ))
}

/// Splits the first inline reference off: text before, source, text after.
fn inline_reference(text: &str) -> Option<Result<(&str, Source, &str), String>> {
    let (before, rest) = text.split_once(INLINE)?;
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}'))
        .unwrap_or(rest.len());
    let (reference, after) = rest.split_at(end);
    let source = match reference.split_once('/') {
        Some(("env", name)) => Source::parse(&format!("env:{name}")),
        Some(("file", path)) => Source::parse(&format!("file:/{path}")),
        _ => Err(format!("`{INLINE}{reference}` is neither `secret://env/NAME` nor `secret://file/path`")),
    };
    Some(source.map(|source| (before, source, after)))
}

/// Whether a value refers to a secret anywhere.
///
/// # Errors
/// A reference is malformed.
pub(crate) fn refers_to_secret(value: &Value) -> Result<bool, String> {
    match value {
        Value::Object(object) => match object_reference(object) {
            Some(reference) => reference.map(|_| true),
            None => any_refers(object.values()),
        },
        Value::Array(array) => any_refers(array.iter()),
        Value::String(text) => match inline_reference(text) {
            Some(reference) => reference.map(|_| true),
            None => Ok(false),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(false),
    }
}

fn any_refers<'a>(values: impl Iterator<Item = &'a Value>) -> Result<bool, String> {
    let mut found = false;
    for value in values {
        found |= refers_to_secret(value)?;
    }
    Ok(found)
}

/// Refuses an input of a job that names a secret: only the operator may.
pub(crate) fn refuse_in_input(tool: &str, json: &[u8]) -> Result<(), ToolError> {
    let suspicious = memchr::memmem::find(json, INLINE.as_bytes()).is_some()
        || memchr::memmem::find(json, b"\"secret\"").is_some()
        // An escaped spelling of either.
        || memchr::memmem::find(json, b"\\u00").is_some()
        || memchr::memmem::find(json, b"\\/").is_some();
    if !suspicious {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(json)
        .map_err(|error| ToolError::invalid_input(format!("the input of {tool} is not JSON: {error}")))?;
    if names_secret(&value) {
        return Err(ToolError::invalid_input(format!(
            "the input of {tool} refers to a secret; secrets stand only in the operator's tool settings: ask for a named tool that holds it"
        )));
    }
    Ok(())
}

/// As [`refers_to_secret`], for a caller's value, where `{"secret": "abc"}` is plain data.
fn names_secret(value: &Value) -> bool {
    match value {
        Value::Object(object) => {
            matches!(object_reference(object), Some(Ok(_))) || object.values().any(names_secret)
        }
        Value::Array(array) => array.iter().any(names_secret),
        Value::String(text) => ["secret://env/", "secret://file/"].iter().any(|marker| text.contains(marker)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The value with every reference replaced; what was read is added to `read`.
pub(crate) fn resolve(value: &Value, secrets: &Secrets, read: &mut Vec<Secret>) -> Result<Value, ToolError> {
    let malformed = |why: String| ToolError::new(ErrorClass::Internal, "bad_secret_reference", why);
    Ok(match value {
        Value::Object(object) => match object_reference(object) {
            Some(reference) => {
                let (source, prefix) = reference.map_err(malformed)?;
                let secret = secrets.read(&source)?;
                let text = format!("{prefix}{}", secret.expose());
                read.push(secret);
                Value::String(text)
            }
            None => Value::Object(
                object
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), resolve(value, secrets, read)?)))
                    .collect::<Result<_, ToolError>>()?,
            ),
        },
        Value::Array(array) => Value::Array(
            array.iter().map(|value| resolve(value, secrets, read)).collect::<Result<_, ToolError>>()?,
        ),
        Value::String(text) => {
            let mut whole = String::new();
            let mut rest = text.as_str();
            while let Some(reference) = inline_reference(rest) {
                let (before, source, after) = reference.map_err(malformed)?;
                let secret = secrets.read(&source)?;
                whole.push_str(before);
                whole.push_str(secret.expose());
                read.push(secret);
                rest = after;
            }
            whole.push_str(rest);
            Value::String(whole)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// The text without the values of the secrets; in JSON text their escaped form is found too.
pub(crate) fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut clean = text.to_owned();
    for secret in secrets {
        let value = secret.expose();
        if clean.contains(value) {
            clean = clean.replace(value, REDACTED);
        }
        let escaped = Value::String(value.to_owned()).to_string();
        let inner = escaped.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        if inner != value && clean.contains(inner) {
            clean = clean.replace(inner, REDACTED);
        }
    }
    clean
}

/// The output without the values of the secrets: a service may echo what it was sent, and a result is kept in Redis.
pub(crate) fn redact_payload(output: Payload, secrets: &[Secret]) -> Payload {
    match std::str::from_utf8(output.bytes()) {
        Ok(text) => Payload::encoded(output.encoding(), redact(text, secrets)),
        Err(_) => output,
    }
}

/// The error without the values of the secrets.
pub(crate) fn redact_error(mut error: ToolError, secrets: &[Secret]) -> ToolError {
    if !secrets.is_empty() {
        error.message = redact(&error.message, secrets);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CANARY: &str = "canary-7f3a";

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(CANARY.to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "[redacted] [redacted] Some([redacted])"
        );
    }

    #[test]
    fn a_file_is_read_again_when_it_changed() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n")?;
        let secrets = Secrets::default();
        let value = json!({"headers": {"A": {"secret": format!("file:{}", path.display()), "prefix": "Bearer "}},
            "text": format!("x=secret://file{}&y", path.display())});
        let mut read = Vec::new();
        assert_eq!(
            resolve(&value, &secrets, &mut read)?,
            json!({"headers": {"A": "Bearer first"}, "text": "x=first&y"})
        );
        assert_eq!(read.len(), 2);
        std::fs::write(&path, "second!\n")?;
        assert_eq!(resolve(&value, &secrets, &mut read)?["headers"]["A"], json!("Bearer second!"));
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place_only() {
        let error = Secrets::default().read(&Source::Env("TIDEMILL_SURELY_NOT_SET".to_owned())).err();
        let message = error.map(|error| error.message).unwrap_or_default();
        assert!(message.contains("env:TIDEMILL_SURELY_NOT_SET is not set"), "{message}");
    }

    #[test]
    fn malformed_references_are_refused() {
        for value in [
            json!({"secret": "vault:x"}),
            json!({"secret": 1}),
            json!({"secret": "env:"}),
            json!({"secret": "env:A-B"}),
            json!({"secret": "file:relative"}),
            json!(["secret://other/x"]),
        ] {
            assert!(refers_to_secret(&value).is_err(), "{value} was accepted");
        }
        assert_eq!(refers_to_secret(&json!({"secret": "x", "other": 1, "more": 2})), Ok(false));
    }

    #[test]
    fn a_job_that_names_a_secret_is_refused_in_every_spelling() {
        for input in [
            r#"{"headers":{"A":{"secret":"env:HOME"}}}"#,
            r#"{"text":"Bearer secret://env/HOME"}"#,
            r#"{"text":"secret:\/\/env\/HOME"}"#,
            r#"{"a":{"\u0073ecret":"file:/etc/passwd"}}"#,
        ] {
            assert!(refuse_in_input("http.request", input.as_bytes()).is_err(), "{input} was accepted");
        }
        for input in [r#"{"json":{"secret":"abc"}}"#, r#"{"text":"no \u0073ecret"}"#, "{}"] {
            assert_eq!(refuse_in_input("http.request", input.as_bytes()), Ok(()), "{input} was refused");
        }
    }

    #[test]
    fn redaction_finds_the_plain_and_the_escaped_form() {
        let secrets = [Secret::new("a\"b\"".to_owned()), Secret::new(CANARY.to_owned())];
        assert_eq!(
            redact(r#"{"x":"a\"b\"","y":"canary-7f3a"}"#, &secrets),
            r#"{"x":"[redacted]","y":"[redacted]"}"#
        );
        assert_eq!(redact("a\"b\"", &secrets), "[redacted]");
    }
}
