//! The vectors and schemas that other languages test against, run against this crate's own reader.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they mean by failing")]

use std::collections::HashSet;

use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemill_protocol::{
    Encoding, EntryId, ErrorBody, FIELDS, Job, Payload, Reader, ResultDocument, StepState, Target, Work,
    partition_of, result_head,
};

fn schema_folder(file: &str) -> String {
    let path = format!("{}/../../schema/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A name or a value of a field, as the file writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Binary { base64: String },
    Long { repeat: String, times: usize },
}

impl Written {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Self::Binary { base64 } => {
                base64::engine::general_purpose::STANDARD.decode(base64).unwrap().into()
            }
            Self::Long { repeat, times } => repeat.repeat(*times).into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    fields: Vec<(Written, Written)>,
    ok: bool,
    code: Option<String>,
    /// Whether the JSON Schema accepts the fields; absent where a map of text cannot say it.
    schema: Option<bool>,
    job: Option<Map<String, Value>>,
}

impl Vector {
    fn all() -> Vec<Self> {
        let vectors: Vec<Self> = serde_json::from_str(&schema_folder("vectors/entries.json")).unwrap();
        assert!(vectors.len() >= 40, "only {} vectors", vectors.len());
        vectors
    }

    fn read(&self) -> Result<Job, String> {
        let fields = self.fields.iter().map(|(name, value)| (name.bytes(), value.bytes())).collect();
        match Work::read(Reader::default(), fields) {
            Ok(Work::Job(job)) => Ok(job),
            Ok(other) => panic!("{}: read as {other:?}", self.name),
            Err(malformed) => Err(malformed.code.to_owned()),
        }
    }
}

/// A job as the vectors write it.
fn written(job: &Job) -> Map<String, Value> {
    let extras = job.extras();
    let (target, name) = match &job.target {
        Target::Tool(name) => ("tool", name),
        Target::Workflow(name) => ("workflow", name),
    };
    let encoding = (job.input.encoding() == Encoding::MsgPack).then_some("msgpack");
    let optional = [
        ("enc", json!(encoding)),
        ("id", json!(extras.id)),
        ("tenant", json!(extras.tenant)),
        ("user", json!(extras.user)),
        ("priority", json!(extras.priority)),
        ("queue", json!(extras.queue)),
        ("mode", json!(extras.mode)),
        ("labels", if extras.labels.is_empty() { Value::Null } else { json!(extras.labels) }),
        ("delay_ms", json!(extras.delay_ms)),
        ("run_at_ms", json!(extras.run_at_ms)),
        ("timeout_ms", json!(extras.timeout_ms)),
        ("deadline_ms", json!(extras.deadline_ms)),
        ("max_attempts", json!(extras.max_attempts)),
        ("result_ttl_ms", json!(extras.result_ttl_ms)),
        ("reply_to", json!(extras.reply_to)),
        ("traceparent", json!(extras.traceparent)),
        ("tracestate", json!(extras.tracestate)),
        ("_entry", json!(extras.first_entry.as_ref().map(EntryId::as_str))),
        ("_attempts", json!((extras.attempts_before > 0).then_some(extras.attempts_before))),
        ("_deaths", json!((extras.deaths > 0).then_some(extras.deaths))),
        ("_first_ms", json!(extras.first_attempt_ms)),
        ("_ticket", json!((!extras.tickets.is_empty()).then(|| extras.tickets.join(" ")))),
        ("_score", json!(extras.line_score)),
    ];
    let always = [(target, json!(name)), ("input", job.input.parse().unwrap())];
    let set = optional.into_iter().filter(|(_, value)| !value.is_null());
    always.into_iter().chain(set).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn every_vector_is_read_as_it_says() {
    let mut wrong = Vec::new();
    for vector in Vector::all() {
        match (vector.read(), vector.ok) {
            (Ok(job), true) => {
                let found = written(&job);
                if vector.job.as_ref() != Some(&found) {
                    wrong.push(format!("{}: read as {found:?}", vector.name));
                }
            }
            (Err(code), false) if vector.code.as_deref() == Some(&code) => {}
            (Ok(job), false) => wrong.push(format!("{}: read as {job:?}", vector.name)),
            (Err(code), _) => wrong.push(format!("{}: refused as {code}", vector.name)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_name_of_a_vector_is_its_own_and_every_code_occurs() {
    let vectors = Vector::all();
    let names: HashSet<_> = vectors.iter().map(|vector| &vector.name).collect();
    assert_eq!(names.len(), vectors.len());
    for code in ["malformed", "unknown_field", "too_large", "unsupported_version"] {
        assert!(vectors.iter().any(|vector| vector.code.as_deref() == Some(code)), "{code}");
    }
}

#[test]
fn the_schema_of_entries_agrees_with_the_vectors() {
    let schema: Value = serde_json::from_str(&schema_folder("entry.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let text = |part: &Written| String::from_utf8(part.bytes().to_vec()).unwrap();
    for vector in Vector::all() {
        let Some(wanted) = vector.schema else { continue };
        let map: Map<_, _> =
            vector.fields.iter().map(|(name, value)| (text(name), json!(text(value)))).collect();
        let errors: Vec<_> = validator.iter_errors(&Value::Object(map)).map(|e| e.to_string()).collect();
        assert_eq!(errors.is_empty(), wanted, "{}: {errors:?}", vector.name);
        assert!(wanted || !vector.ok, "{}: a job that the schema refuses", vector.name);
    }
}

#[test]
fn the_schema_of_entries_has_every_field_of_the_reader() {
    let schema: Value = serde_json::from_str(&schema_folder("entry.schema.json")).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let public: HashSet<_> =
        properties.keys().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
    let known: HashSet<_> = FIELDS.into_iter().filter(|field| *field != "x-*").collect();
    assert_eq!(public, known);
}

#[test]
fn results_are_as_their_schema_says() {
    let schema: Value = serde_json::from_str(&schema_folder("result.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let error = ErrorBody { code: "timeout".to_owned(), message: "a \"quoted\"\nreason".to_owned() };
    let output = Payload::json("{\"n\":1}");
    for (state, output, error) in [
        (StepState::Succeeded, Some(&output), None),
        (StepState::Failed, None, Some(&error)),
        (StepState::TimedOut, None, Some(&error)),
        (StepState::Cancelled, None, Some(&error)),
    ] {
        let mut text = result_head("order/42", state, output, error, 3);
        text.extend_from_slice(b",\"finished_at_ms\":1732000000123}");
        let value: Value = serde_json::from_slice(&text).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let document: ResultDocument = serde_json::from_slice(&text).unwrap();
        assert_eq!((document.attempts, document.error.as_ref()), (3, error));
    }
    for wrong in [
        json!({"id": "a", "state": "succeeded", "output": 1, "error": null, "attempts": 1}),
        json!({"id": "a", "state": "running", "output": null, "error": null, "attempts": 1, "finished_at_ms": 1}),
        json!({"id": "a", "state": "failed", "output": null, "error": null, "attempts": 1, "finished_at_ms": 1}),
        json!({"id": "a b", "state": "succeeded", "output": 1, "error": null, "attempts": 1, "finished_at_ms": 1}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn every_id_is_in_the_partition_of_the_vectors() {
    #[derive(Deserialize)]
    struct Row {
        id: String,
        partitions: u32,
        partition: u32,
    }
    let rows: Vec<Row> = serde_json::from_str(&schema_folder("vectors/partitions.json")).unwrap();
    assert!(rows.len() > 20, "only {} rows", rows.len());
    for row in rows {
        assert_eq!(partition_of(&row.id, row.partitions), row.partition, "{} of {}", row.id, row.partitions);
    }
}
