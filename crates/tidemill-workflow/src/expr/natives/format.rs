//! Escapes: base64, URI and HTML, which `@base64`, `@uri` and `@html` call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jaq_core::native::{bome, v};

use super::super::meter;
use super::super::value::Val;
use super::{Error, Natives, ValR};

pub(super) fn natives() -> Natives {
    vec![
        ("encode_base64", v(0), |cv| bome(text(&cv.1).map(|text| Val::str(&STANDARD.encode(text))))),
        ("decode_base64", v(0), |cv| bome(decode_base64(&cv.1))),
        ("encode_uri", v(0), |cv| bome(text(&cv.1).map(|text| Val::str(&encode_uri(text))))),
        ("decode_uri", v(0), |cv| bome(text(&cv.1).map(|text| Val::str(&decode_uri(text))))),
        ("escape_html", v(0), |cv| bome(text(&cv.1).map(|text| Val::str(&escape_html(text))))),
        ("unescape_html", v(0), |cv| bome(text(&cv.1).map(|text| Val::str(&unescape_html(text))))),
    ]
}

fn text(value: &Val) -> Result<&str, Error> {
    let text = value.as_text().ok_or_else(|| Error::typ(value.clone(), "string"))?;
    meter::charge_bytes(text.len());
    Ok(text)
}

fn decode_base64(value: &Val) -> ValR {
    let bytes = STANDARD
        .decode(text(value)?)
        .map_err(|error| Error::str(format_args!("{value} is not valid base64: {error}")))?;
    Ok(Val::str(&String::from_utf8_lossy(&bytes)))
}

fn encode_uri(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn decode_uri(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let decoded = tail
            .get(..2)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn unescape_html(text: &str) -> String {
    // `&amp;` last, so that `&amp;lt;` becomes `&lt;` and no further.
    let pairs =
        [("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&apos;", "'"), ("&quot;", "\""), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
