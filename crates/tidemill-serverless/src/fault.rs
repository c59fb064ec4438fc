//! Errors as documents see them: problem details as in RFC 7807, with the specification's types.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the types of the specification begin with.
const STANDARD: &str = "https://serverlessworkflow.io/spec/1.0.0/errors/";
/// What they began with in earlier texts of it, which documents still carry.
const EARLIER: &[&str] = &[
    "https://serverlessworkflow.io/dsl/errors/types/",
    "https://serverlessworkflow.io.io/dsl/errors/types/",
    "https://https://serverlessworkflow.io/spec/1.0.0/errors/",
];

/// A kind of error that the specification names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standard {
    Configuration,
    Validation,
    Expression,
    Authorization,
    Timeout,
    Communication,
    Runtime,
}

impl Standard {
    const fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Validation => "validation",
            Self::Expression => "expression",
            Self::Authorization => "authorization",
            Self::Timeout => "timeout",
            Self::Communication => "communication",
            Self::Runtime => "runtime",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Configuration | Self::Validation | Self::Expression => 400,
            Self::Authorization => 403,
            Self::Timeout => 408,
            Self::Communication | Self::Runtime => 500,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration Error",
            Self::Validation => "Validation Error",
            Self::Expression => "Expression Error",
            Self::Authorization => "Authorization Error",
            Self::Timeout => "Timeout",
            Self::Communication => "Communication Error",
            Self::Runtime => "Runtime Error",
        }
    }
}

/// An error that was raised, by a document or by what carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A URI that names the kind of error.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status, as HTTP has them.
    pub status: u16,
    /// JSON pointer of the task that it comes from.
    pub instance: String,
    /// A short summary.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

impl Fault {
    pub(crate) fn standard(kind: Standard, instance: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{STANDARD}{}", kind.word()),
            status: kind.status(),
            instance: instance.to_owned(),
            title: Some(kind.title().to_owned()),
            detail: Some(detail.into()),
        }
    }

    pub(crate) const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The last part of its type, for codes.
    #[must_use]
    pub fn code(&self) -> &str {
        self.kind.rsplit(['/', ':', '#']).find(|part| !part.is_empty()).unwrap_or("error")
    }

    /// As the value that a document sees.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether each member of `filter` is as in this error. A standard type counts as equal under each of its prefixes.
    pub(crate) fn fits(&self, filter: &serde_json::Map<String, Value>) -> bool {
        let own = self.to_value();
        filter.iter().all(|(name, wanted)| {
            let name = if name == "details" { "detail" } else { name };
            match (name, wanted) {
                ("type", Value::String(wanted)) => standard(wanted) == standard(&self.kind),
                _ => own.get(name) == Some(wanted),
            }
        })
    }
}

/// A type under the prefix of today.
fn standard(kind: &str) -> String {
    let rest = EARLIER.iter().find_map(|prefix| kind.strip_prefix(prefix));
    rest.map_or_else(|| kind.to_owned(), |rest| format!("{STANDARD}{rest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(value: &Value) -> serde_json::Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_filter_fits_where_all_its_members_do() {
        let fault = Fault::standard(Standard::Communication, "/do/0/a", "gone").with_status(404);
        assert!(fault.fits(&filter(&json!({}))));
        assert!(fault.fits(&filter(&json!({"status": 404, "detail": "gone", "instance": "/do/0/a"}))));
        assert!(!fault.fits(&filter(&json!({"status": 503}))));
        assert!(!fault.fits(&filter(&json!({"status": 404, "title": "another"}))));
    }

    #[test]
    fn a_standard_type_is_the_same_under_each_of_its_prefixes() {
        let fault = Fault::standard(Standard::Timeout, "/do/0/a", "late");
        for prefix in EARLIER.iter().chain([&STANDARD]) {
            assert!(fault.fits(&filter(&json!({"type": format!("{prefix}timeout")}))), "{prefix}");
        }
        assert!(!fault.fits(&filter(&json!({"type": "https://example.com/errors/timeout"}))));
    }

    #[test]
    fn the_code_of_a_type_is_its_last_part() {
        let mut fault = Fault::standard(Standard::Timeout, "", "");
        assert_eq!(fault.code(), "timeout");
        for (kind, code) in
            [("urn:example:late", "late"), ("https://example.com/", "example.com"), ("", "error")]
        {
            kind.clone_into(&mut fault.kind);
            assert_eq!(fault.code(), code);
        }
    }
}
