//! Bodies: read whole, within a size and a time.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::refusal::{Code, Refusal};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyType {
    Json,
    Lines,
    Yaml,
}

/// The type that the request names; JSON when it names none.
pub(super) fn type_of(headers: &HeaderMap, takes: &[BodyType]) -> Result<BodyType, Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(BodyType::Json) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let named = match essence.as_str() {
        "" | "application/json" => Some(BodyType::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(BodyType::Lines),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(BodyType::Yaml),
        // what curl says of any data unless told otherwise
        "application/x-www-form-urlencoded" => Some(BodyType::Json),
        _ => None,
    };
    named.filter(|named| takes.contains(named)).ok_or_else(|| {
        let words = takes.iter().map(|body_type| body_type.word()).collect::<Vec<_>>().join(" or ");
        Refusal::new(
            Code::UnsupportedType,
            format!("the content type {text:?} is not supported here; send {words}"),
        )
    })
}

impl BodyType {
    const fn word(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Yaml => "application/yaml",
        }
    }
}

/// Reads the body.
pub(super) async fn read(request: Request, max_bytes: usize, within: Duration) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(
            Code::BodyTooLarge,
            format!("the body is larger than the {max_bytes} bytes allowed here"),
        )
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    let reading = Limited::new(request.into_body(), max_bytes).collect();
    match tokio::time::timeout(within, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::new(Code::InvalidRequest, format!("the body ended early: {error}"))),
        Err(_) => Err(Refusal::new(
            Code::RequestTimeout,
            format!("the body did not arrive within {} ms", within.as_millis()),
        )),
    }
}

/// The body as text.
pub(super) fn text(body: &Bytes) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|error| {
        Refusal::new(Code::InvalidJson, format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })
}
