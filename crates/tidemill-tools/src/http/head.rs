//! The head of a response, and what it says about the body and the connection (RFC 9112).

use http::{Method, StatusCode};

use super::reader::Fault;

/// The largest head, in bytes, interim responses not counted.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most fields of a head.
const MAX_FIELDS: usize = 100;

/// Where a field ends in [`Head::text`]; it begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Field {
    name_end: usize,
    value_end: usize,
}

/// Status and fields of a response, in one piece of memory.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    is_http_1_0: bool,
    /// Names in lower case and values, one after the other.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    /// After so many bytes.
    Length(u64),
    Chunked,
    /// With the connection.
    UntilClose,
}

impl Head {
    /// Reads a head from the beginning of the bytes; gives it and its length, or nothing while it is not whole.
    ///
    /// # Errors
    /// The bytes are not the head of an HTTP/1.1 or HTTP/1.0 response, or have too many fields.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Fault::malformed(format!("its head has more than {MAX_FIELDS} fields")));
            }
            Err(error) => return Err(Fault::malformed(error.to_string())),
        };
        let code = response.code.unwrap_or_default();
        let status =
            StatusCode::from_u16(code).map_err(|_| Fault::malformed(format!("{code} is not a status")))?;
        let size = response.headers.iter().map(|field| field.name.len() + field.value.len()).sum();
        let mut head = Self {
            status,
            is_http_1_0: response.version == Some(0),
            text: Vec::with_capacity(size),
            fields: Vec::with_capacity(response.headers.len()),
        };
        for field in response.headers.iter() {
            head.text.extend(field.name.bytes().map(|byte| byte.to_ascii_lowercase()));
            let name_end = head.text.len();
            head.text.extend_from_slice(field.value);
            head.fields.push(Field { name_end, value_end: head.text.len() });
        }
        Ok(Some((head, length)))
    }

    /// Every field in the order of the head, names in lower case.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut begin = 0;
        self.fields.iter().map(move |field| {
            let name = self.text.get(begin..field.name_end).unwrap_or_default();
            let value = self.text.get(field.name_end..field.value_end).unwrap_or_default();
            begin = field.value_end;
            (std::str::from_utf8(name).unwrap_or_default(), value)
        })
    }

    /// The values of the fields of this name, which is in lower case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The first value of the field, if it is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields()
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
            .map(str::trim)
    }

    /// Where the body of this final response ends.
    ///
    /// # Errors
    /// Two parties could read the head differently: whatever is ambiguous is refused (RFC 9112 §6.3), since the rest of
    /// such a connection may be the answer to somebody else.
    pub(crate) fn framing(&self, method: &Method) -> Result<Framing, Fault> {
        let has_no_body = *method == Method::HEAD
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_no_body {
            return Ok(Framing::Empty);
        }
        let length = self.content_length()?;
        if self.all("transfer-encoding").next().is_none() {
            return Ok(length.map_or(Framing::UntilClose, Framing::Length));
        }
        if length.is_some() {
            return Err(Fault::malformed("it has both Transfer-Encoding and Content-Length"));
        }
        if self.is_http_1_0 {
            return Err(Fault::malformed("it has a Transfer-Encoding in HTTP/1.0"));
        }
        let mut codings = self.tokens("transfer-encoding");
        match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            _ => Err(Fault::malformed("its Transfer-Encoding is not just `chunked`")),
        }
    }

    /// Whether the server keeps the connection open for another request.
    pub(crate) fn keeps_connection(&self) -> bool {
        let says = |word: &[u8]| self.tokens("connection").any(|token| token.eq_ignore_ascii_case(word));
        !says(b"close") && (!self.is_http_1_0 || says(b"keep-alive"))
    }

    fn content_length(&self) -> Result<Option<u64>, Fault> {
        let mut length = None;
        for value in self.all("content-length") {
            for text in value.split(|byte| *byte == b',') {
                let text = text.trim_ascii();
                let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
                let number = is_number
                    .then(|| std::str::from_utf8(text).ok()?.parse::<u64>().ok())
                    .flatten()
                    .ok_or_else(|| Fault::malformed("its Content-Length is not a number"))?;
                if length.is_some_and(|known| known != number) {
                    return Err(Fault::malformed("it has two different Content-Length"));
                }
                length = Some(number);
            }
        }
        Ok(length)
    }

    fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }
}
