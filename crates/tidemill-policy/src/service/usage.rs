//! What calls use: guessed before, read from the answer after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a call is taken to use before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or a jq expression over the input")]
pub enum Estimate {
    /// Always so much.
    Fixed(u64),
    /// What this jq expression says about the input; rounded up.
    Jq(String),
}

/// How an answer says what the call used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "UsageForm", into = "UsageForm")]
pub enum Usage {
    /// In OpenAI's or Anthropic's way, whichever is there.
    #[default]
    Auto,
    /// `usage` with `prompt_tokens`, `completion_tokens`, `total_tokens`.
    OpenAi,
    /// `usage` with `input_tokens`, `output_tokens`.
    Anthropic,
    /// Unit → jq over the output.
    Jq(BTreeMap<String, String>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `auto`, `openai`, `anthropic`, or units with jq over the output")]
enum UsageForm {
    Word(String),
    Jq(BTreeMap<String, String>),
}

impl TryFrom<UsageForm> for Usage {
    type Error = String;

    fn try_from(form: UsageForm) -> Result<Self, String> {
        match form {
            UsageForm::Jq(units) => Ok(Self::Jq(units)),
            UsageForm::Word(word) => match word.as_str() {
                "auto" => Ok(Self::Auto),
                "openai" => Ok(Self::OpenAi),
                "anthropic" => Ok(Self::Anthropic),
                _ => Err(format!("`{word}` is not among `auto`, `openai`, `anthropic`")),
            },
        }
    }
}

impl From<Usage> for UsageForm {
    fn from(usage: Usage) -> Self {
        match usage {
            Usage::Auto => Self::Word("auto".to_owned()),
            Usage::OpenAi => Self::Word("openai".to_owned()),
            Usage::Anthropic => Self::Word("anthropic".to_owned()),
            Usage::Jq(units) => Self::Jq(units),
        }
    }
}
