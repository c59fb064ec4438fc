use http::Method;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;

/// What a caller sees of a response, or the kind of fault.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Answer { status: u16, fields: Vec<(String, Vec<u8>)>, body: Vec<u8> },
    Malformed,
    TooLarge,
    Cut,
}

fn seen(fault: &Fault) -> Seen {
    match fault {
        Fault::Malformed(_) => Seen::Malformed,
        Fault::TooLarge => Seen::TooLarge,
        Fault::Cut(_) => Seen::Cut,
    }
}

/// Feeds the parts one by one, then the end of the connection.
fn read_parts<'a>(parts: impl Iterator<Item = &'a [u8]>, method: &Method) -> (Seen, bool) {
    let mut reader = Reader::new(LIMIT);
    let mut whole = Ok(false);
    for part in parts {
        whole = reader.feed(part, method);
        if !matches!(whole, Ok(false)) {
            break;
        }
    }
    match whole.and_then(|is_whole| if is_whole { Ok(()) } else { reader.end() }) {
        Err(fault) => (seen(&fault), false),
        Ok(()) => reader.finish().map_or((Seen::Cut, false), |(answer, is_reusable)| {
            let fields =
                answer.head.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let status = answer.head.status.as_u16();
            (Seen::Answer { status, fields, body: answer.body }, is_reusable)
        }),
    }
}

fn read(bytes: &[u8]) -> (Seen, bool) {
    read_parts(std::iter::once(bytes), &Method::GET)
}

/// The body of what must be a response, or the fault.
fn body_of(text: &str) -> Result<String, Seen> {
    match read(text.as_bytes()).0 {
        Seen::Answer { body, .. } => Ok(String::from_utf8_lossy(&body).into_owned()),
        fault => Err(fault),
    }
}

#[test]
fn a_body_ends_where_its_head_says() {
    for (text, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200\r\ncontent-length: 3, 3\r\nContent-Length: 03\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=\"y;\"\r\n0123456789\r\n0\r\n\r\n",
            "abc0123456789",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1 \r\na\r\n000\r\nx-sum: 1\r\ny: 2\r\n\r\n",
            "a",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5000\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            "x",
        ),
        ("HTTP/1.1 200 OK\ncontent-length: 1\n\nx", "x"),
    ] {
        assert_eq!(body_of(text).as_deref(), Ok(body), "{text:?}");
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n";
    let (seen, is_reusable) = read_parts(std::iter::once(&head[..]), &Method::HEAD);
    assert!(matches!(seen, Seen::Answer { status: 200, .. }) && is_reusable, "{seen:?}");
}

#[test]
fn what_two_parties_could_read_differently_is_refused() {
    for rest in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "content-length: 3, 4\r\n\r\nabcd",
        "content-length: +3\r\n\r\nabc",
        "content-length: 3 3\r\n\r\nabc",
        "content-length:\r\n\r\n",
        "content-length: 0x3\r\n\r\nabc",
        "content-length: 99999999999999999999\r\n\r\n",
        "content-length : 3\r\n\r\nabc",
        "x: a\r\n content-length: 3\r\n\r\nabc",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding:\r\n\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{rest}");
        assert_eq!(body_of(&text), Err(Seen::Malformed), "{rest:?}");
    }
    assert_eq!(
        body_of("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        Err(Seen::Malformed)
    );
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3;x\ny\r\nabc\r\n0\r\n\r\n",
        "3;x\rabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        ";x\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "00000000000000000\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(body_of(&text), Err(Seen::Malformed), "{chunks:?}");
    }
}

#[test]
fn what_is_no_response_is_named_before_the_connection_ends() {
    for text in
        ["SSH-2.0-OpenSSH_9.2\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "<html>...."]
    {
        let mut reader = Reader::new(LIMIT);
        assert!(matches!(reader.feed(text.as_bytes(), &Method::GET), Err(Fault::Malformed(_))), "{text:?}");
    }
    for status in ["099", "1000", "2xx", "-20", ""] {
        assert_eq!(body_of(&format!("HTTP/1.1 {status} OK\r\n\r\n")), Err(Seen::Malformed), "{status}");
    }
    assert_eq!(body_of("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), Err(Seen::Malformed));
}

#[test]
fn whatever_a_server_can_repeat_is_bounded() {
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert_eq!(body_of(&many(100)).as_deref(), Ok(""));
    assert_eq!(body_of(&many(101)), Err(Seen::Malformed));
    let long = |size: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(size));
    assert_eq!(body_of(&long(MAX_HEAD_BYTES - 24)).as_deref(), Ok(""));
    assert_eq!(body_of(&long(MAX_HEAD_BYTES - 23)), Err(Seen::Malformed));
    let interim =
        |count: usize| format!("{}HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(count));
    assert_eq!(body_of(&interim(16)).as_deref(), Ok(""));
    assert_eq!(body_of(&interim(17)), Err(Seen::Malformed));
    let chunked =
        |chunks: &str| body_of(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(20_000))), Err(Seen::Malformed));
    assert_eq!(
        chunked(&format!("{}0\r\n\r\n", "1;xxxx\r\na\r\n".repeat(900))).map(|body| body.len()),
        Ok(900)
    );
    assert_eq!(
        chunked(&format!("{}0\r\n\r\n", "1;xxxxxxxxxxxxxxxxxxxx\r\na\r\n".repeat(900))),
        Err(Seen::Malformed)
    );
    assert_eq!(chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000))), Err(Seen::Malformed));
    assert_eq!(chunked("3e9\r\n"), Err(Seen::TooLarge));
    assert_eq!(chunked("ffffffffffffffff\r\n"), Err(Seen::TooLarge));
    assert_eq!(body_of("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n"), Err(Seen::TooLarge));
    assert_eq!(body_of(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_001))), Err(Seen::TooLarge));
    assert_eq!(
        body_of(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000))).map(|body| body.len()),
        Ok(1_000)
    );
}

#[test]
fn a_response_that_breaks_off_is_cut_wherever_it_breaks() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        for end in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..end]).0, Seen::Cut, "{text:?} up to {end}");
        }
        assert!(body_of(text).is_ok(), "{text:?}");
    }
}

#[test]
fn a_connection_is_used_again_only_when_both_sides_know_where_it_stands() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nconnection: Upgrade, Close\r\ncontent-length: 1\r\n\r\nx", false),
        ("HTTP/1.1 200 OK\r\n\r\nx", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", false),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n0", false),
    ] {
        assert_eq!(read(text.as_bytes()).1, expected, "{text:?}");
    }
}

/// Responses of every kind, most of them well-formed.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec(("[A-Za-z-]{1,12}", "[ -~]{0,20}"), 0..5);
    let body = prop::collection::vec(any::<u8>(), 0..60);
    let chunks = prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 1..30), "(;[a-z]{1,5}(=[a-z]{1,3})?)?"),
        0..5,
    );
    (0..5_u8, 0..2_usize, fields, body, chunks).prop_map(|(kind, interim, fields, body, chunks)| {
        let mut bytes = "HTTP/1.1 100 Continue\r\nx: y\r\n\r\n".repeat(interim).into_bytes();
        let mut put = |text: &[u8]| bytes.extend_from_slice(text);
        put(if kind == 3 { b"HTTP/1.0 203 So\r\n" } else { b"HTTP/1.1 200 OK\r\n" });
        for (name, value) in fields {
            put(format!("x{name}: {value}\r\n").as_bytes());
        }
        match kind {
            0 | 4 => {
                put(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                put(&body);
                if kind == 4 {
                    put(b"HTTP/1.1 500 Surplus\r\n\r\n");
                }
            }
            1 => {
                put(b"transfer-encoding: chunked\r\n\r\n");
                for (chunk, extension) in chunks {
                    put(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                    put(&chunk);
                    put(b"\r\n");
                }
                put(b"0\r\nx-trailer: y\r\n\r\n");
            }
            _ => {
                put(b"\r\n");
                put(&body);
            }
        }
        bytes
    })
}

/// The parts between the cuts, empty ones left out.
fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_answer_does_not_depend_on_how_the_bytes_are_split(
        bytes in response(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = read(&bytes).0;
        prop_assert!(matches!(whole, Seen::Answer { .. }), "{whole:?}");
        prop_assert_eq!(&read_parts(split(&bytes, &cuts).into_iter(), &Method::GET).0, &whole);
        prop_assert_eq!(&read_parts(bytes.chunks(1), &Method::GET).0, &whole);
    }

    #[test]
    fn a_mutated_response_is_read_or_refused_alike_however_it_is_split(
        bytes in response(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = bytes;
        for (place, byte, kind) in changes {
            let place = place.index(bytes.len().max(1));
            match kind {
                0 if place < bytes.len() => { bytes.remove(place); }
                1 => bytes.insert(place.min(bytes.len()), byte),
                2 => bytes.insert(place.min(bytes.len()), b"\r\n:;,0 f"[usize::from(byte) % 8]),
                _ => if let Some(old) = bytes.get_mut(place) { *old = byte },
            }
        }
        let whole = read(&bytes).0;
        prop_assert_eq!(&read_parts(split(&bytes, &cuts).into_iter(), &Method::GET).0, &whole);
        prop_assert_eq!(&read_parts(bytes.chunks(1), &Method::GET).0, &whole);
    }

    #[test]
    fn noise_never_panics_and_keeps_memory_bounded(
        bytes in prop::collection::vec(any::<u8>(), 0..4_000),
        head in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]),
        step in 1..500_usize,
    ) {
        let bytes = [head.as_bytes(), &bytes].concat();
        let mut reader = Reader::new(LIMIT);
        for part in bytes.chunks(step) {
            if !matches!(reader.feed(part, &Method::GET), Ok(false)) {
                break;
            }
            prop_assert!(reader.buffer.len() <= MAX_HEAD_BYTES.max(LIMIT));
        }
    }
}
