//! From the bytes of a connection to one whole response, however they are split.
//!
//! Nothing here waits or touches a socket. Memory grows with what has come, never with what was announced.

use http::{Method, StatusCode};

use super::chunked::Chunked;
use super::head::{Framing, Head, MAX_HEAD_BYTES};

/// The most interim (1xx) responses before the final one.
const MAX_INTERIM: u8 = 16;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not what HTTP/1.1 says; the words continue "… did not answer in HTTP/1.1: ".
    Malformed(Box<str>),
    /// The body is larger than the caller wants.
    TooLarge,
    /// The connection ended before the response did.
    Cut(Option<std::io::Error>),
}

impl Fault {
    pub(crate) fn malformed(why: impl Into<Box<str>>) -> Self {
        Self::Malformed(why.into())
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
enum Body {
    Done,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// Reads the response to one request.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Present once the head is whole.
    head: Option<Head>,
    /// The head's bytes as long as it is not whole, then the body.
    buffer: Vec<u8>,
    /// How long the buffer must be to be worth parsing when no empty line has come.
    parse_at: usize,
    body: Body,
    limit: usize,
    interim: u8,
    begun: bool,
    surplus: bool,
}

impl Reader {
    /// A reader of a response whose body has at most `limit` bytes.
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            head: None,
            buffer: Vec::new(),
            parse_at: 0,
            body: Body::Done,
            limit,
            interim: 0,
            begun: false,
            surplus: false,
        }
    }

    /// Whether any byte of a response came.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes what came; says whether the response is whole. After that it must not be called again.
    ///
    /// # Errors
    /// What came cannot be part of a response, or makes it too large.
    pub(crate) fn feed(&mut self, bytes: &[u8], method: &Method) -> Result<bool, Fault> {
        self.begun |= !bytes.is_empty();
        if self.head.is_some() { self.feed_body(bytes) } else { self.feed_head(bytes, method) }
    }

    /// Takes the end of the connection.
    ///
    /// # Errors
    /// The response is not whole.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        match (&self.head, &self.body) {
            (None, _) => {
                // Says rather that it is no HTTP at all, if so.
                Head::parse(&self.buffer)?;
                Err(Fault::Cut(None))
            }
            (Some(_), Body::Done | Body::UntilClose) => Ok(()),
            (Some(_), Body::Length(_) | Body::Chunked(_)) => Err(Fault::Cut(None)),
        }
    }

    /// The response, once [`Self::feed`] or [`Self::end`] said that it is whole, and whether the connection can carry
    /// another request.
    pub(crate) fn finish(self) -> Option<(Answer, bool)> {
        let head = self.head?;
        let is_reusable = !self.surplus && !matches!(self.body, Body::UntilClose) && head.keeps_connection();
        Some((Answer { head, body: self.buffer }, is_reusable))
    }

    fn feed_head(&mut self, bytes: &[u8], method: &Method) -> Result<bool, Fault> {
        let mut scanned = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        while self.is_worth_parsing(scanned) {
            // The parser would skip any number of empty lines.
            if matches!(self.buffer.first(), Some(b'\r' | b'\n')) {
                return Err(Fault::malformed("it begins with an empty line"));
            }
            let Some((head, length)) = Head::parse(&self.buffer)? else {
                if self.buffer.len() > MAX_HEAD_BYTES {
                    return Err(too_long());
                }
                self.parse_at = self.buffer.len().saturating_mul(2);
                break;
            };
            if length > MAX_HEAD_BYTES {
                return Err(too_long());
            }
            if !head.status.is_informational() {
                let rest = self.buffer.split_off(length);
                self.buffer = Vec::new();
                self.begin_body(head.framing(method)?)?;
                self.head = Some(head);
                return self.feed_body(&rest);
            }
            self.skip_interim(&head, length)?;
            scanned = 0;
        }
        Ok(false)
    }

    /// Parsing at each byte would cost the square of the head's length: only a blank line, or twice as much as the last
    /// time, is worth it.
    fn is_worth_parsing(&self, scanned: usize) -> bool {
        let fresh = self.buffer.get(scanned.saturating_sub(3)..).unwrap_or_default();
        !self.buffer.is_empty()
            && (self.buffer.len() >= self.parse_at
                || self.buffer.len() > MAX_HEAD_BYTES
                || memchr::memmem::find(fresh, b"\n\r\n").is_some()
                || memchr::memmem::find(fresh, b"\n\n").is_some())
    }

    fn skip_interim(&mut self, head: &Head, length: usize) -> Result<(), Fault> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Fault::malformed("it switches protocols, which was not asked for"));
        }
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Fault::malformed(format!("it sent more than {MAX_INTERIM} interim responses")));
        }
        self.buffer.drain(..length);
        self.parse_at = 0;
        Ok(())
    }

    fn begin_body(&mut self, framing: Framing) -> Result<(), Fault> {
        self.body = match framing {
            Framing::Empty | Framing::Length(0) => Body::Done,
            Framing::Length(length) if length > self.limit as u64 => return Err(Fault::TooLarge),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::new()),
            Framing::UntilClose => Body::UntilClose,
        };
        Ok(())
    }

    fn feed_body(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        let (used, is_done) = match &mut self.body {
            Body::Done => (0, true),
            Body::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                append(&mut self.buffer, bytes.get(..count).unwrap_or_default(), self.limit)?;
                *left -= count as u64;
                (count, *left == 0)
            }
            Body::Chunked(chunked) => {
                let used = chunked.decode(bytes, &mut self.buffer, self.limit)?;
                (used, chunked.is_done())
            }
            Body::UntilClose => {
                append(&mut self.buffer, bytes, self.limit)?;
                (bytes.len(), false)
            }
        };
        if is_done {
            self.body = Body::Done;
            self.surplus = used < bytes.len();
        }
        Ok(is_done)
    }
}

/// Adds to the body what may still be added.
pub(crate) fn append(body: &mut Vec<u8>, bytes: &[u8], limit: usize) -> Result<(), Fault> {
    if bytes.len() > limit.saturating_sub(body.len()) {
        return Err(Fault::TooLarge);
    }
    body.extend_from_slice(bytes);
    Ok(())
}

fn too_long() -> Fault {
    Fault::malformed(format!("its head is longer than {MAX_HEAD_BYTES} bytes"))
}

#[cfg(test)]
mod tests;
