use bytes::Bytes;
use tidemill_protocol::{Job, Reader};

use super::{Kind, Request};
use crate::refusal::{Code, Refusal};

fn job(text: &str) -> Result<Request<'_>, Refusal> {
    let request = Request::parse(Kind::Job, text)?;
    request.check(1024)?;
    Ok(request)
}

fn refused(text: &str) -> (Code, String) {
    let refusal = job(text).unwrap_err();
    (refusal.code, refusal.detail)
}

#[test]
fn the_input_s_text_passes_as_it_stands() {
    let request = job(r#"{"tool":"echo","input": {"b" : 1.0e2, "a":"\u00e4"} }"#).unwrap();
    assert_eq!(request.input.as_deref(), Some(r#"{"b" : 1.0e2, "a":"\u00e4"}"#));
    assert_eq!(request.target, "echo");
}

#[test]
fn escapes_in_names_and_texts_are_read() {
    let request = job(r#"{"to\u006fl":"e\u0063ho","id":"a\/b"}"#).unwrap();
    assert_eq!((&*request.target, request.id.as_deref()), ("echo", Some("a/b")));
}

#[test]
fn what_is_no_request_is_refused_with_its_code() {
    let cases = [
        ("", Code::InvalidJson),
        ("{", Code::InvalidJson),
        ("{\"tool\":\"echo\"} x", Code::InvalidJson),
        ("[]", Code::InvalidRequest),
        ("1", Code::InvalidRequest),
        ("{}", Code::MissingMember),
        (r#"{"tool":""}"#, Code::MissingMember),
        (r#"{"workflow":"w"}"#, Code::InvalidRequest),
        (r#"{"tool":"echo","tool":"sleep"}"#, Code::InvalidMember),
        (r#"{"tool":1}"#, Code::InvalidMember),
        (r#"{"tool":"a b"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","id":"a b"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","queue":"a:b"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","tenant":"ä"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","user":"a b"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","priority":10}"#, Code::InvalidMember),
        (r#"{"tool":"echo","priority":"high"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","delay_ms":"5"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","delay_ms":-5}"#, Code::InvalidMember),
        (r#"{"tool":"echo","delay_ms":1.5}"#, Code::InvalidMember),
        (r#"{"tool":"echo","delay_ms":99999999999999999999}"#, Code::InvalidMember),
        (r#"{"tool":"echo","delay_ms":1,"run_at_ms":2}"#, Code::InvalidMember),
        (r#"{"tool":"echo","max_attempts":0}"#, Code::InvalidMember),
        (r#"{"tool":"echo","reply_to":""}"#, Code::InvalidMember),
        (r#"{"tool":"echo","traceparent":"00-x"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","v":2}"#, Code::InvalidMember),
        (r#"{"tool":"echo","enc":"msgpack"}"#, Code::InvalidMember),
        (r#"{"tool":"echo","retries":3}"#, Code::UnknownMember),
    ];
    for (text, code) in cases {
        assert_eq!(refused(text).0, code, "{text}");
    }
    let huge = format!(r#"{{"tool":"echo","input":"{}"}}"#, "x".repeat(2000));
    assert_eq!(refused(&huge).0, Code::InputTooLarge);
}

#[test]
fn a_misspelt_member_is_told_its_right_name() {
    let (code, detail) = refused(r#"{"tool":"echo","dealy_ms":5}"#);
    assert_eq!(code, Code::UnknownMember);
    assert!(detail.contains("did you mean \"delay_ms\"?"), "{detail}");
}

#[test]
fn a_fault_of_the_text_is_told_before_a_fault_of_a_member() {
    assert_eq!(refused(r#"{"nope":1,"tool":"#).0, Code::InvalidJson);
}

#[test]
fn what_is_accepted_here_the_contract_s_reader_accepts_too() {
    let text = r#"{"tool":"echo@2","input":[1,{"a":null}],"id":"o-1","tenant":"t","user":"u","priority":9,"queue":"q",
        "timeout_ms":5,"deadline_ms":6,"max_attempts":7,"result_ttl_ms":8,"reply_to":"r",
        "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=b","x-mine":"y","v":1}"#;
    let request = job(text).unwrap();
    let fields = crate::intake::entry_fields(&request, Some("o-1"));
    let fields = fields
        .into_iter()
        .map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value)));
    let read: Job = Reader::default().read(fields).unwrap();
    assert_eq!(read.target.name(), "echo@2");
    let extras = read.extras();
    assert_eq!(extras.id.as_deref(), Some("o-1"));
    assert_eq!(
        (extras.tenant.as_deref(), extras.user.as_deref(), read.priority()),
        (Some("t"), Some("u"), 9)
    );
    assert_eq!((extras.timeout_ms, extras.deadline_ms, extras.max_attempts), (Some(5), Some(6), Some(7)));
    assert_eq!(extras.reply_to.as_deref(), Some("r"));
    assert_eq!(extras.queue, None, "a job's queue is the stream that it stands in");
}
