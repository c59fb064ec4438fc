//! What runs are found by: a few names with short values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most labels of a run.
pub const MAX_LABELS: usize = 32;

/// The longest name of a label, in bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 64;

/// The longest value of a label, in bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 256;

/// A run's labels, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

/// The labels of a run that has none.
pub static NO_LABELS: Labels = Labels(BTreeMap::new());

/// Labels that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLabels(String);

/// Checks the name of a label: 1 to 64 of `A-Z a-z 0-9 . _ / -`.
///
/// # Errors
/// It is empty, too long, or has another character.
pub fn check_label_name(name: &str) -> Result<(), InvalidLabels> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    if !name.is_empty() && name.len() <= MAX_LABEL_NAME_BYTES && name.bytes().all(is_fine) {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(InvalidLabels(format!(
        "label {shown:?} is not valid: a label's name is 1 to {MAX_LABEL_NAME_BYTES} of A-Z a-z 0-9 . _ / -"
    )))
}

fn check_value(name: &str, value: &str) -> Result<(), InvalidLabels> {
    if !value.is_empty() && value.len() <= MAX_LABEL_VALUE_BYTES && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(InvalidLabels(format!(
        "the value of label {name:?} is empty, longer than {MAX_LABEL_VALUE_BYTES} bytes, or has a control character"
    )))
}

impl Labels {
    /// Reads a JSON object of text, whole or broken numbers and truth values; all are kept as text.
    ///
    /// # Errors
    /// It is no such object, has too many labels, or one that is not valid.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidLabels> {
        let read = serde_json::from_slice::<BTreeMap<String, Value>>(json);
        let read = read.map_err(|error| InvalidLabels(format!("labels are not a JSON object: {error}")))?;
        let mut labels = Self::default();
        for (name, value) in read {
            labels.insert(&name, &value)?;
        }
        Ok(labels)
    }

    /// Adds a label in place of one of the same name.
    ///
    /// # Errors
    /// There are too many, or it is not valid.
    pub fn insert(&mut self, name: &str, value: &Value) -> Result<(), InvalidLabels> {
        check_label_name(name)?;
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(InvalidLabels(format!(
                    "the value of label {name:?} is neither text nor a number nor true or false"
                )));
            }
        };
        check_value(name, &value)?;
        if self.0.len() >= MAX_LABELS && !self.0.contains_key(name) {
            return Err(InvalidLabels(format!("there are more than {MAX_LABELS} labels")));
        }
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// Reads what [`Self::to_json`] wrote; what cannot be read has none.
    #[must_use]
    pub fn stored(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// The JSON that they are stored as.
    #[must_use]
    pub fn to_json(&self) -> String {
        let members = self.0.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())));
        Value::Object(members.collect()).to_string()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Each in one word, `<name>=<value>`.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.iter().map(|(name, value)| format!("{name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn labels_are_short_words_and_what_is_none_is_refused_by_name() {
        let labels = Labels::parse(br#"{"team":"billing","order":42,"vip":true,"share":0.5}"#).unwrap();
        let words: Vec<_> = labels.words().collect();
        assert_eq!(words, ["order=42", "share=0.5", "team=billing", "vip=true"]);
        assert_eq!(Labels::stored(labels.to_json().as_bytes()), labels);
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(257));
        let many: Vec<_> = (0..33).map(|at| format!("\"l{at}\":1")).collect();
        let many = format!("{{{}}}", many.join(","));
        let bad = [
            "[]",
            "x",
            r#"{"":"a"}"#,
            r#"{"a=b":"c"}"#,
            r#"{"a":null}"#,
            r#"{"a":[1]}"#,
            r#"{"a":""}"#,
            r#"{"a":"b\n"}"#,
        ];
        for bad in bad.into_iter().chain([&*long, &*many]) {
            assert!(Labels::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let told = Labels::parse(r#"{"größe":"1"}"#.as_bytes()).unwrap_err().to_string();
        assert!(told.contains("größe") && told.contains("A-Z"), "{told}");
    }
}
