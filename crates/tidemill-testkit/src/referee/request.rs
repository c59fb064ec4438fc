//! Reading HTTP/1.1 requests off a connection.

use std::io;

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::ledger::Call;

const HEAD_BYTES: usize = 64 * 1024;
const BODY_BYTES: usize = 16 * 1024 * 1024;
const HEADERS: usize = 64;

/// What came over a connection.
#[derive(Debug)]
pub(super) enum Received {
    /// A whole request.
    Call {
        call: Call,
        /// Whether the connection ends with its answer.
        last: bool,
    },
    /// Something that is no request, or is too large; the status says which.
    Unreadable(u16),
    /// The caller has gone.
    Nothing,
}

/// What the head of a request says.
#[derive(Debug, Default)]
struct Head {
    call: Call,
    tokens: Option<u64>,
    head_bytes: usize,
    body_bytes: usize,
    chunked: bool,
    expects: bool,
    last: bool,
}

/// The next request; `received` keeps what came of the one after it.
pub(super) async fn read(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Received> {
    let mut head = loop {
        match parse(received) {
            Ok(Some(head)) => break head,
            Ok(None) if received.len() > HEAD_BYTES => return Ok(Received::Unreadable(431)),
            Ok(None) => {}
            Err(status) => return Ok(Received::Unreadable(status)),
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(Received::Nothing);
        }
    };
    if head.chunked {
        return Ok(Received::Unreadable(411));
    }
    if head.body_bytes > BODY_BYTES {
        return Ok(Received::Unreadable(413));
    }
    let whole = head.head_bytes + head.body_bytes;
    if head.expects && received.len() < whole {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    while received.len() < whole {
        if stream.read_buf(received).await? == 0 {
            return Ok(Received::Nothing);
        }
    }
    let body = received.get(head.head_bytes..whole).unwrap_or_default();
    match tokens(head.tokens, body) {
        Err(status) => return Ok(Received::Unreadable(status)),
        Ok((input, output)) => (head.call.input_tokens, head.call.output_tokens) = (input, output),
    }
    received.drain(..whole);
    Ok(Received::Call { call: head.call, last: head.last })
}

/// The head, if all of it has come.
fn parse(received: &[u8]) -> Result<Option<Head>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    let mut head = Head { head_bytes, last: request.version == Some(0), ..Head::default() };
    head.call.path = request.path.unwrap_or_default().to_owned();
    for header in request.headers.iter() {
        let value = || String::from_utf8_lossy(header.value);
        let number = || value().trim().parse().map_err(|_| 400_u16);
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            head.body_bytes = number()?;
        } else if is("authorization") {
            head.call.key = value().into_owned();
        } else if is("idempotency-key") {
            head.call.idempotency_key = Some(value().into_owned());
        } else if is("x-tokens") {
            head.tokens = Some(value().trim().parse().map_err(|_| 400_u16)?);
        } else if is("transfer-encoding") {
            head.chunked = true;
        } else if is("expect") {
            head.expects = true;
        } else if is("connection") {
            head.last = value().eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

/// The keys of a body that say what a call uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    tokens: Option<f64>,
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
}

/// Input and output tokens; parts of a token count whole. A total alone is three parts input and one part output; the
/// header stands above the body. What should be a number and is none is refused: taken for 0 it would pass any limit.
fn tokens(header: Option<u64>, body: &[u8]) -> Result<(u64, u64), u16> {
    let said: Tokens = match body.first() {
        Some(b'{') => match serde_json::from_slice(body) {
            Ok(said) => said,
            Err(error) if error.is_data() => return Err(400),
            // no JSON after all
            Err(_) => Tokens::default(),
        },
        _ => Tokens::default(),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from floats stops at the ends of the range"
    )]
    let whole = |number: f64| number.ceil() as u64;
    let split = |total: u64| (total - total / 4, total / 4);
    let (total, input, output) = (
        header.or_else(|| said.tokens.map(whole)),
        said.input_tokens.map(whole),
        said.output_tokens.map(whole),
    );
    Ok(match (total, input, output) {
        (Some(total), None, None) => split(total),
        (Some(total), _, Some(output)) => (total.saturating_sub(output), output.min(total)),
        (Some(total), Some(input), None) => (input.min(total), total.saturating_sub(input)),
        (None, input, output) => (input.unwrap_or_default(), output.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_from_the_header_or_the_body() {
        let tokens = |header, body| tokens(header, body).unwrap();
        assert_eq!(tokens(None, b""), (0, 0));
        assert_eq!(tokens(None, b"{\"tokens\":8,\"model\":\"m\"}"), (6, 2));
        assert_eq!(tokens(Some(4), b"{\"tokens\":8}"), (3, 1));
        assert_eq!(tokens(None, b"{\"input_tokens\":5,\"output_tokens\":7}"), (5, 7));
        assert_eq!(tokens(None, b"{\"tokens\":10,\"output_tokens\":7}"), (3, 7));
        assert_eq!(tokens(None, b"{\"tokens\":7.2e0}"), (6, 2));
        assert_eq!(tokens(None, b"{no json"), (0, 0));
    }

    #[test]
    fn tokens_that_are_no_number_do_not_pass_for_none() {
        for body in ["{\"tokens\":\"many\"}", "{\"input_tokens\":[1]}"] {
            assert_eq!(tokens(None, body.as_bytes()), Err(400), "{body}");
        }
    }

    #[test]
    fn a_head_is_read_when_all_of_it_has_come() {
        let text = b"POST /v1/x?y=1 HTTP/1.1\r\nAuthorization: Bearer a\r\nX-Tokens: 12\r\ncontent-length: 3\r\n\r\nabc";
        assert!(parse(&text[..40]).unwrap().is_none());
        let head = parse(text).unwrap().unwrap();
        assert_eq!((head.call.path.as_str(), head.call.key.as_str()), ("/v1/x?y=1", "Bearer a"));
        assert_eq!((head.tokens, head.body_bytes, head.last), (Some(12), 3, false));
        assert_eq!(parse(b"no http at all\r\n\r\n").unwrap_err(), 400);
    }
}
