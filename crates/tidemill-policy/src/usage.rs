//! How much a call used, as the answers of language models say it.
//!
//! Looked for at `.usage` of a tool's output and, because `http.request` puts the answer there, at `.body.usage`; Gemini's
//! at `usageMetadata` in the same places. Only these members are parsed, the rest of the output is skipped over. Counted
//! is what the service itself counts against its limits:
//!
//! * OpenAI: everything, cached prompts too.
//! * Anthropic: tokens written to its cache are input; tokens read from it are not, in no unit.
//! * Gemini: tokens of thoughts are output, and results that a tool of its own adds to the prompt are input.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::service::Usage;

/// Unit of what was sent to a model.
pub const INPUT_TOKENS: &str = "input_tokens";
/// Unit of what a model wrote.
pub const OUTPUT_TOKENS: &str = "output_tokens";
/// Unit of both together.
pub const TOTAL_TOKENS: &str = "total_tokens";

/// The largest count that is believed; below it every whole number is exact in a double.
const MAX_COUNT: f64 = 1e15;

/// In whose way an answer says what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Whichever is there.
    #[default]
    Auto,
    /// Chat completions, responses and embeddings, and the many services that answer like them.
    OpenAi,
    /// Messages.
    Anthropic,
    /// `generateContent`.
    Gemini,
}

impl Shape {
    /// The shape that a service's definition names; none where jq says what was used.
    #[must_use]
    pub const fn of(usage: &Usage) -> Option<Self> {
        match usage {
            Usage::Auto => Some(Self::Auto),
            Usage::OpenAi => Some(Self::OpenAi),
            Usage::Anthropic => Some(Self::Anthropic),
            Usage::Jq(_) => None,
        }
    }
}

/// Reads what a call used from the tool's output, which is JSON text: units with their amounts.
///
/// What is not said, is no count, or stands in another place is left out; a total that is not stated is the sum of its
/// parts. An output that is not JSON says nothing.
#[must_use]
pub fn read(output_json: &[u8], shape: Shape) -> Vec<(&'static str, f64)> {
    let Some(output) = object::<Output<'_>>(output_json) else { return Vec::new() };
    let found = output.used(shape);
    if !found.is_empty() {
        return found;
    }
    let body = output.body.and_then(|body| object::<Output<'_>>(body.get().as_bytes()));
    body.map(|body| body.used(shape)).unwrap_or_default()
}

/// Where usage may stand.
#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "usageMetadata")]
    usage_metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

impl Output<'_> {
    fn used(&self, shape: Shape) -> Vec<(&'static str, f64)> {
        let used = match shape {
            Shape::Gemini => self.gemini(),
            Shape::OpenAi => self.counts().map(|counts| counts.as_openai()),
            Shape::Anthropic => self.counts().map(|counts| counts.as_anthropic()),
            Shape::Auto => match self.counts() {
                // Only OpenAI and those who answer like it say a prompt's tokens, or a total.
                Some(counts) if counts.prompt_tokens.is_some() || counts.total_tokens.is_some() => {
                    Some(counts.as_openai())
                }
                Some(counts) => Some(counts.as_anthropic()),
                None => self.gemini(),
            },
        };
        used.unwrap_or_default().amounts()
    }

    fn counts(&self) -> Option<Counts<'_>> {
        object(self.usage?.get().as_bytes())
    }

    fn gemini(&self) -> Option<Used> {
        let metadata: Metadata<'_> = object(self.usage_metadata?.get().as_bytes())?;
        Some(Used {
            input: sum([count(metadata.prompt), count(metadata.tool_use_prompt)]),
            output: sum([count(metadata.candidates), count(metadata.thoughts)]),
            total: count(metadata.total),
        })
    }
}

/// `usage` of OpenAI and Anthropic; each count by itself, so that an odd one spoils no other.
#[derive(Deserialize)]
struct Counts<'a> {
    #[serde(borrow, default)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_creation_input_tokens: Option<&'a RawValue>,
}

impl Counts<'_> {
    fn as_openai(&self) -> Used {
        Used {
            input: count(self.prompt_tokens).or_else(|| count(self.input_tokens)),
            output: count(self.completion_tokens).or_else(|| count(self.output_tokens)),
            total: count(self.total_tokens),
        }
    }

    fn as_anthropic(&self) -> Used {
        Used {
            input: sum([count(self.input_tokens), count(self.cache_creation_input_tokens)]),
            output: count(self.output_tokens),
            total: None,
        }
    }
}

/// Gemini's `usageMetadata`.
#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default, rename = "promptTokenCount")]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "toolUsePromptTokenCount")]
    tool_use_prompt: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "candidatesTokenCount", alias = "responseTokenCount")]
    candidates: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "thoughtsTokenCount")]
    thoughts: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "totalTokenCount")]
    total: Option<&'a RawValue>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    input: Option<f64>,
    output: Option<f64>,
    total: Option<f64>,
}

impl Used {
    fn amounts(self) -> Vec<(&'static str, f64)> {
        // Without its input the sum would be no total; an embedding has no output.
        let parts = self.input.map(|input| input + self.output.unwrap_or_default());
        // A total may count more than is listed, never less.
        let total = self.total.into_iter().chain(parts).reduce(f64::max);
        [(INPUT_TOKENS, self.input), (OUTPUT_TOKENS, self.output), (TOTAL_TOKENS, total)]
            .into_iter()
            .filter_map(|(unit, amount)| Some((unit, amount?)))
            .collect()
    }
}

/// Reads an object. A list is none, though serde would take its members for those of the struct in their order.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    if json.trim_ascii_start().first() == Some(&b'{') { serde_json::from_slice(json).ok() } else { None }
}

/// A number that can be a count.
fn count(value: Option<&RawValue>) -> Option<f64> {
    value?.get().parse().ok().filter(|count| (0.0..=MAX_COUNT).contains(count))
}

/// The sum of what is known; nothing when nothing is.
fn sum(counts: [Option<f64>; 2]) -> Option<f64> {
    counts.into_iter().flatten().reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::{INPUT_TOKENS, OUTPUT_TOKENS, Shape, TOTAL_TOKENS, read};
    use crate::service::Usage;
    use proptest::prelude::*;

    /// Input, output and total; -1 for what is left out.
    fn amounts([input, output, total]: [i32; 3]) -> Vec<(&'static str, f64)> {
        [(INPUT_TOKENS, input), (OUTPUT_TOKENS, output), (TOTAL_TOKENS, total)]
            .into_iter()
            .filter(|(_, amount)| *amount >= 0)
            .map(|(unit, amount)| (unit, f64::from(amount)))
            .collect()
    }

    #[test]
    fn the_answers_of_services_say_what_was_used() {
        for (shape, answer, expected) in [
            // chat completions
            (
                Shape::OpenAi,
                r#"{"id":"c","usage":{"prompt_tokens":13,"completion_tokens":5,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":8}}}"#,
                [13, 5, 18],
            ),
            // responses
            (
                Shape::OpenAi,
                r#"{"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87,"total_tokens":123}}"#,
                [36, 87, 123],
            ),
            // embeddings
            (Shape::OpenAi, r#"{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}"#, [8, -1, 8]),
            // a total that counts what is not listed
            (
                Shape::OpenAi,
                r#"{"usage":{"completion_tokens":102,"prompt_tokens":758,"total_tokens":1725}}"#,
                [758, 102, 1_725],
            ),
            // OpenAI's counts with Anthropic's beside them, as gateways give them
            (
                Shape::Auto,
                r#"{"usage":{"prompt_tokens":100,"completion_tokens":5,"cache_creation_input_tokens":40,"cache_read_input_tokens":50}}"#,
                [100, 5, 105],
            ),
            // messages
            (Shape::Anthropic, r#"{"usage":{"input_tokens":2095,"output_tokens":503}}"#, [2_095, 503, 2_598]),
            (
                Shape::Anthropic,
                r#"{"usage":{"input_tokens":50,"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,"output_tokens":503}}"#,
                [298, 503, 801],
            ),
            (
                Shape::Anthropic,
                r#"{"usage":{"input_tokens":50,"cache_creation_input_tokens":null,"output_tokens":3}}"#,
                [50, 3, 53],
            ),
            // generateContent
            (
                Shape::Gemini,
                r#"{"usageMetadata":{"promptTokenCount":10,"toolUsePromptTokenCount":5,"candidatesTokenCount":20,"thoughtsTokenCount":30,"totalTokenCount":65}}"#,
                [15, 50, 65],
            ),
            (
                Shape::Gemini,
                r#"{"usageMetadata":{"promptTokenCount":10,"totalTokenCount":10}}"#,
                [10, -1, 10],
            ),
        ] {
            let in_body = format!(r#"{{"status":200,"headers":{{"usage":"x"}},"body":{answer}}}"#);
            for output in [answer, in_body.as_str()] {
                for shape in [shape, Shape::Auto] {
                    assert_eq!(read(output.as_bytes(), shape), amounts(expected), "{shape:?} {output}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_count_is_left_out() {
        for (output, expected) in [
            (r#"{"usage":{"prompt_tokens":-1,"completion_tokens":5}}"#, [-1, 5, -1]),
            (r#"{"usage":{"prompt_tokens":"13","completion_tokens":5,"total_tokens":6}}"#, [-1, 5, 6]),
            (r#"{"usage":{"prompt_tokens":1e300,"total_tokens":6}}"#, [-1, -1, 6]),
            (
                r#"{"usage":{"prompt_tokens":{"a":1},"completion_tokens":[1],"total_tokens":true}}"#,
                [-1, -1, -1],
            ),
            (r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":0}}"#, [9, 3, 12]),
            (r#"{"usage":{"input_tokens":0,"output_tokens":0}}"#, [0, 0, 0]),
            (r#"{"usage":null,"usageMetadata":null,"body":null}"#, [-1, -1, -1]),
            (r#"{"usage":[1],"usageMetadata":7,"body":"usage"}"#, [-1, -1, -1]),
            (r#"{"usage":12,"body":{"usage":{"prompt_tokens":1,"total_tokens":1}}}"#, [1, -1, 1]),
            (r#"{"body":{"body":{"usage":{"prompt_tokens":1}}}}"#, [-1, -1, -1]),
            (r#"{"usage":{"prompt_tokens":1}"#, [-1, -1, -1]),
            (r#"["usage"]"#, [-1, -1, -1]),
            (r#"[[1,2,3]]"#, [-1, -1, -1]),
            (r#"{"body":[{"prompt_tokens":1}]}"#, [-1, -1, -1]),
            ("", [-1, -1, -1]),
        ] {
            assert_eq!(read(output.as_bytes(), Shape::Auto), amounts(expected), "{output}");
        }
        assert!(read(b"{\"usage\":{\"prompt_tokens\":1},\"a\":\"\xff\"}", Shape::Gemini).is_empty());
    }

    #[test]
    fn a_deep_output_is_passed_over() {
        let deep = format!(
            r#"{{"body":{}{},"usage":{{"total_tokens":4}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(read(deep.as_bytes(), Shape::Auto), amounts([-1, -1, 4]));
    }

    #[test]
    fn a_definition_names_the_shape() {
        assert_eq!(Shape::of(&Usage::default()), Some(Shape::Auto));
        assert_eq!(Shape::of(&Usage::Anthropic), Some(Shape::Anthropic));
        assert_eq!(Shape::of(&Usage::Jq([(TOTAL_TOKENS.to_owned(), ".a".to_owned())].into())), None);
    }

    proptest! {
        #[test]
        fn no_output_panics_or_gives_what_is_no_count(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\"usage\"", "\"usageMetadata\"", "\"body\"", "\"prompt_tokens\"", "\"input_tokens\"",
                "\"total_tokens\"", "\"promptTokenCount\"", "1", "-1", "1e999", "null", "\"", "é", "\\u0000",
            ]), 0..24),
        ) {
            for shape in [Shape::Auto, Shape::OpenAi, Shape::Anthropic, Shape::Gemini] {
                for (_, amount) in read(parts.concat().as_bytes(), shape) {
                    prop_assert!((0.0..=2e15).contains(&amount));
                }
            }
        }
    }
}
