//! The bytes of a backup: a first line that names the format, then records with their lengths, the last of them with a digest over
//! all before it; the whole compressed.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use ring::digest;

use super::error::BackupError;
use super::record::{Counts, Header, Record};

/// The format that is written, and the newest that can be read.
pub const FORMAT: u32 = 1;
const MAGIC: &str = "tidemill backup ";
/// The longest first line.
const MAX_LINE: usize = 64;
/// The longest record: a value that Redis can hold, and what is around it.
const MAX_RECORD_BYTES: u32 = 600 << 20;
const LEVEL: i32 = 3;

/// Writes records.
pub(super) struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    digest: digest::Context,
    pub(super) counts: Counts,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, header: Header) -> Result<Self, BackupError> {
        let mut out = zstd::Encoder::new(out, LEVEL).map_err(BackupError::Io)?;
        out.include_checksum(true).map_err(BackupError::Io)?;
        let digest = digest::Context::new(&digest::SHA256);
        let mut writer = Self { out, digest, counts: Counts::default() };
        writer.write(format!("{MAGIC}{FORMAT}\n").as_bytes())?;
        writer.put(&Record::Header(header))?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.out.write_all(bytes).map_err(BackupError::Io)
    }

    pub(super) fn put(&mut self, record: &Record) -> Result<(), BackupError> {
        let body = rmp_serde::to_vec(record).map_err(|error| BackupError::Io(io::Error::other(error)))?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_RECORD_BYTES);
        let Some(length) = length else {
            return Err(BackupError::Io(io::Error::other(format!(
                "a record of {} bytes is too long",
                body.len()
            ))));
        };
        self.write(&length.to_le_bytes())?;
        self.write(&body)
    }

    /// Writes the end mark; gives back what was written to.
    pub(super) fn finish(mut self) -> Result<(W, Counts), BackupError> {
        let counts = self.counts.clone();
        self.put(&Record::Counts(counts.clone()))?;
        let digest = Bytes::copy_from_slice(self.digest.clone().finish().as_ref());
        self.put(&Record::Trailer(digest))?;
        Ok((self.out.finish().map_err(BackupError::Io)?, counts))
    }
}

/// Reads records. After the last, the digest and the end of the file have been checked.
pub(super) struct Reader<R: Read> {
    input: zstd::Decoder<'static, io::BufReader<R>>,
    digest: digest::Context,
    records: u64,
    pub(super) header: Header,
    is_over: bool,
}

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Result<Self, BackupError> {
        let input = zstd::Decoder::new(input).map_err(BackupError::Io)?;
        let header = Header {
            namespace: String::new(),
            partitions: 0,
            created_ms: 0,
            version: String::new(),
            has_results: false,
        };
        let digest = digest::Context::new(&digest::SHA256);
        let mut reader = Self { input, digest, records: 0, header, is_over: false };
        reader.first_line()?;
        match reader.next()? {
            Some(Record::Header(header)) => reader.header = header,
            _ => return Err(reader.damaged("it does not begin with its head")),
        }
        Ok(reader)
    }

    fn first_line(&mut self) -> Result<(), BackupError> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < MAX_LINE && byte != *b"\n" {
            self.input.read_exact(&mut byte).map_err(|error| {
                // zstd says so of what it did not write; whoever decrypts says otherwise
                if line.is_empty() && error.kind() == io::ErrorKind::Other {
                    BackupError::Foreign(": it does not begin as one")
                } else {
                    BackupError::reading(error, 0)
                }
            })?;
            line.extend_from_slice(&byte);
        }
        self.digest.update(&line);
        let version = std::str::from_utf8(&line).ok().and_then(|line| line.trim_end().strip_prefix(MAGIC));
        match version.and_then(|version| version.parse().ok()) {
            Some(found) if found > FORMAT => Err(BackupError::Newer { found }),
            Some(_) => Ok(()),
            None => Err(BackupError::Foreign(": its first line is another")),
        }
    }

    pub(super) fn damaged(&self, why: impl Into<String>) -> BackupError {
        BackupError::Damaged { records: self.records, why: why.into() }
    }

    /// The next record; `None` after the last, when all is as it was written.
    pub(super) fn next(&mut self) -> Result<Option<Record>, BackupError> {
        if self.is_over {
            return Ok(None);
        }
        let records = self.records;
        let failed = |error| BackupError::reading(error, records);
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(failed)?;
        let size = u32::from_le_bytes(length);
        if size > MAX_RECORD_BYTES {
            return Err(self.damaged(format!("a record says that it has {size} bytes")));
        }
        // grows with what is there, whatever the length says
        let mut body = Vec::new();
        (&mut self.input).take(u64::from(size)).read_to_end(&mut body).map_err(failed)?;
        if body.len() < size as usize {
            return Err(BackupError::Truncated { records });
        }
        let record: Record = rmp_serde::from_slice(&body)
            .map_err(|error| self.damaged(format!("a record cannot be read: {error}")))?;
        if let Record::Trailer(digest) = &record {
            self.end(digest)?;
        } else {
            self.digest.update(&length);
            self.digest.update(&body);
            self.records += 1;
        }
        Ok(Some(record))
    }

    fn end(&mut self, expected: &[u8]) -> Result<(), BackupError> {
        self.is_over = true;
        if self.digest.clone().finish().as_ref() != expected {
            return Err(self.damaged("its digest is not that of its content"));
        }
        let mut rest = [0; 1];
        let more = self.input.read(&mut rest).map_err(|error| BackupError::reading(error, self.records))?;
        if more > 0 { Err(self.damaged("something follows its end mark")) } else { Ok(()) }
    }
}

/// The head of a backup, without a look at the rest.
///
/// # Errors
/// The file is no backup, is newer than this Tidemill, or cannot be read.
pub fn read_header<R: Read>(input: R) -> Result<Header, BackupError> {
    Reader::new(input).map(|reader| reader.header)
}

#[cfg(test)]
mod tests {
    use super::{BackupError, Header, Reader, Record, Writer};

    fn header() -> Header {
        Header {
            namespace: "tm".to_owned(),
            partitions: 1,
            created_ms: 7,
            version: "0".to_owned(),
            has_results: false,
        }
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), header()).unwrap();
        for n in 0..200_u32 {
            writer.put(&Record::Run { partition: n, id: format!("run {n}") }).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<u64, BackupError> {
        let mut reader = Reader::new(bytes)?;
        while reader.next()?.is_some() {}
        Ok(reader.records)
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written()).unwrap(), 202);
    }

    #[test]
    fn no_part_of_a_backup_passes_for_the_whole() {
        let bytes = written();
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err();
            assert!(matches!(error, BackupError::Truncated { .. }), "{length} of {}: {error}", bytes.len());
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let bytes = written();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            // a bit of zstd's own head may say nothing: then every record is still what it was
            if let Ok(records) = read(&flipped) {
                assert_eq!(records, 202, "bit {at}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_seen_even_where_the_compression_does_not_notice() {
        let plain = zstd::decode_all(&*written()).unwrap();
        for at in (0..plain.len()).step_by(7) {
            let mut flipped = plain.clone();
            flipped[at] ^= 4;
            let again = zstd::encode_all(&*flipped, 1).unwrap();
            assert!(read(&again).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_and_other_files_are_refused_by_name() {
        let text = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let newer = zstd::encode_all(&b"tidemill backup 2\nwhatever"[..], 1).unwrap();
        assert!(text(&newer).contains("has format 2"), "{}", text(&newer));
        let other = zstd::encode_all(&[b'x'; 100][..], 1).unwrap();
        assert!(text(&other).contains("no backup of Tidemill"));
        assert!(text(b"PK\x03\x04 a file of another kind").contains("no backup of Tidemill"));
    }
}
